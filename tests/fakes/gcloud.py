"""Runs the commands about IAM that this package prints, on a fake project."""

from __future__ import annotations

import copy
import shlex
from itertools import groupby
from typing import TYPE_CHECKING, Any

from tests.fakes.project import PROJECT

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.fakes.iam import FakePolicy
    from tests.fakes.project import FakeProject


def run(project: FakeProject, commands: str) -> None:
    """Run commands, one a line or joined by ``&&``, as a user would paste them.

    Raises
    ------
    RestRefused
        If Google would refuse one of them.
    """
    for line in commands.splitlines():
        if line.strip().startswith("gcloud"):
            words = shlex.split(line)
            for joined, group in groupby(words, lambda word: word == "&&"):
                if not joined:
                    _run(project, list(group))


def _run(project: FakeProject, words: list[str]) -> None:
    flags = dict(
        word[2:].partition("=")[::2] for word in words[1:] if word.startswith("--")
    )
    plain = [word for word in words[1:] if not word.startswith("--")]
    *verb, name = plain
    _VERBS[" ".join(verb)](project, name, flags)


def _add_to_project(project: FakeProject, _: str, flags: dict[str, str]) -> None:
    conditional = bool(project.policy.conditional)
    assert "condition" in flags or not conditional, "gcloud would ask for a condition"
    if flags["role"].startswith("projects/"):
        assert flags["role"] in project.own_roles, flags["role"]
    _add(project.policy, flags, project.pools)


def _add_to_bucket(project: FakeProject, _: str, flags: dict[str, str]) -> None:
    _add(project.bucket_policy, flags, project.pools)


def _add(policy: FakePolicy, flags: dict[str, str], pools: set[str]) -> None:
    found = policy.read(3, strict=True)
    wanted = _binding(flags)
    found["bindings"].append(wanted)
    policy.write({**found, "version": 3}, pools)


def _remove_from_project(project: FakeProject, _: str, flags: dict[str, str]) -> None:
    _remove(project.policy, flags, project.pools)


def _remove_from_bucket(project: FakeProject, _: str, flags: dict[str, str]) -> None:
    assert "condition" in flags, "gcloud would ask for a condition"
    _remove(project.bucket_policy, flags, project.pools)


def _remove(policy: FakePolicy, flags: dict[str, str], pools: set[str]) -> None:
    found = copy.deepcopy(policy.read(3, strict=True))
    wanted = _binding(flags)
    (member,) = wanted["members"]
    matching = [
        one
        for one in found["bindings"]
        if one["role"] == wanted["role"]
        and one.get("condition") == wanted.get("condition")
        and member in one["members"]
    ]
    assert matching, "gcloud would find no such binding"
    for one in matching:
        one["members"].remove(member)
    found["bindings"] = [one for one in found["bindings"] if one["members"]]
    policy.write({**found, "version": 3}, pools)


def _binding(flags: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {"role": flags["role"], "members": [flags["member"]]}
    if flags.get("condition", "None") != "None":
        parts = dict(one.split("=", 1) for one in flags["condition"].split(","))
        found["condition"] = parts
    return found


def _set_role(project: FakeProject, name: str, flags: dict[str, str]) -> None:
    path = f"projects/{PROJECT}/roles/{name}"
    project.own_roles[path] = flags["permissions"].split(",")


def _undelete_role(project: FakeProject, name: str, _: dict[str, str]) -> None:
    project.deleted_roles.remove(f"projects/{PROJECT}/roles/{name}")


def _enable_account(project: FakeProject, name: str, _: dict[str, str]) -> None:
    project.disabled_accounts.remove(name)


_VERBS: dict[str, Callable[[FakeProject, str, dict[str, str]], None]] = {
    "iam roles create": _set_role,
    "iam roles update": _set_role,
    "iam roles undelete": _undelete_role,
    "iam service-accounts enable": _enable_account,
    "projects add-iam-policy-binding": _add_to_project,
    "projects remove-iam-policy-binding": _remove_from_project,
    "storage buckets add-iam-policy-binding": _add_to_bucket,
    "storage buckets remove-iam-policy-binding": _remove_from_bucket,
}
