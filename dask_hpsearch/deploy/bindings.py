"""IAM bindings of a GKE cluster's pods: checked, made or printed, and waited for.

They need the project's identity pool, which GKE creates together with the first GKE cluster:
so this comes after the creation, and an absent binding deletes nothing.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from dask_hpsearch.concurrency import Deadline
from dask_hpsearch.exceptions import MissingBindingsError
from dask_hpsearch.gcp.gke.project_bindings import ProjectBindings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dask_hpsearch.config.gke import GKESpec
    from dask_hpsearch.deploy.context import DeployContext
    from dask_hpsearch.gcp.gke.project_bindings import BindingState

TIMEOUT = 600.0  # for a person to run the commands, and for Google to see their effect
_POLL_INTERVAL = 10.0
_SAY_INTERVAL = 60.0


def ensure_bindings(
    context: DeployContext,
    *,
    created: bool,
    bind: bool,
    before_waiting: Callable[[], None] = lambda: None,
) -> bool:
    """Make sure that a GKE cluster's pods have their IAM bindings.

    Missing bindings are made, if the user wants and may do that; else the commands that
    make them are printed, and waited for.

    Parameters
    ----------
    context : DeployContext
    created : bool
        Whether the GKE cluster was just created.
    bind : bool
        Whether to change the project's and the bucket's IAM policies.
    before_waiting : callable
        Called once the commands are printed, if that is necessary.

    Returns
    -------
    bool
        Whether bindings may be so new that they have no effect yet.

    Raises
    ------
    MissingBindingsError
        If bindings are still missing after ten minutes. The GKE cluster stays.
    """
    if context.clients.rest is None or not context.spec.workload_identity:
        return False
    project = ProjectBindings(context.spec, context.clients.rest)
    state = project.check()
    if state.unknown:
        if created:
            context.say(_unknown_text(state))
        return created
    if state.complete:
        return False
    if bind:
        context.say("setting the IAM bindings of its pods")
        refused = project.make(state)
        state = project.check()
        if refused:
            context.say(f"not all of them could be set ({refused})")
    if not state.complete:
        context.say(_missing_text(state, bind=bind))
        before_waiting()
        _wait(context, project, bind=bind)
    return True


def _wait(context: DeployContext, project: ProjectBindings, *, bind: bool) -> None:
    """Wait until nothing is missing.

    Raises
    ------
    MissingBindingsError
    """
    deadline = Deadline(TIMEOUT, context.clock.now)
    silent = Deadline(_SAY_INTERVAL, context.clock.now)
    state = project.check()
    while not state.complete:
        if deadline.expired:
            raise MissingBindingsError(_timeout_text(context.spec, state))
        if silent.expired:
            silent = Deadline(_SAY_INTERVAL, context.clock.now)
            left = math.ceil(deadline.remaining / 60)
            context.say(
                f"waiting for {_count(len(state.bindings), 'IAM binding')}, up to "
                f"{_count(max(left, 1), 'more minute')}"
            )
        context.clock.sleep(_POLL_INTERVAL)
        if bind and not state.unknown:  # the identity pool may exist by now
            project.make(state)
        state = project.check()


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _block(commands: Iterable[str]) -> str:
    return "\n".join(f"    {command}" for command in commands)


def _missing_text(state: BindingState, *, bind: bool) -> str:
    problems = "; ".join(dict.fromkeys(one.problem for one in state.bindings))
    hint = "" if bind else " (bind=True, or the option --bind, runs them for you)"
    return (
        f"IAM bindings are missing: {problems}. Run these commands{hint}, or let the "
        f"project's owner do it, within {TIMEOUT / 60:.0f} minutes:\n"
        f"{_block(state.commands)}"
    )


def _unknown_text(state: BindingState) -> str:
    return (
        f"the IAM bindings of its pods could not be checked ({state.unknown}). If they do "
        f"not exist yet, let the project's owner run:\n{_block(state.commands)}"
    )


def _timeout_text(spec: GKESpec, state: BindingState) -> str:
    if state.unknown:
        problem = f"IAM bindings could not be checked any more ({state.unknown})"
    else:
        problem = f"IAM bindings are still missing after {TIMEOUT / 60:.0f} minutes"
    return (
        f"{problem}. The GKE cluster {spec.path} stays, costs money, and does not delete "
        f"itself without them. Run these commands:\n{_block(state.commands)}\n"
        "Then repeat the call, or remove the GKE cluster with dask-hpsearch down. To delete it "
        f"after it has expired, run dask-hpsearch sweep --project {spec.project}"
    )
