"""The script that proves a project: its table, and its steps as far as fakes go.

There is no Kubernetes here: the steps that need one are stood in for. The others are commands
that reach a project of Google's services by TLS.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sklearn.datasets import load_digits

from dask_hpsearch.config.load import load_gke_spec
from dask_hpsearch.gcp.gke import labels as ours
from dask_hpsearch.gcp.pricing.costs import estimate
from tests.config.test_placement import ALL, scheduled
from tests.fakes import gcloud
from tests.fakes.fresh import REGION, fresh_project
from tests.fakes.project import (
    BUCKET,
    FOLDER,
    ONE_CLUSTER,
    OPERATIONS_ROLE,
    REAPER,
    REAPER_ROLE,
    SERVICES,
    FakeProject,
    pods_bound,
    project_at,
)
from tests.fakes.terminal import Terminal, terminal_of
from tests.fakes.tokens import token_service
from tests.gcs.held import names_in, new_bucket
from tests.smoke import load_script

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.gcs.proxy import Proxy

PATH = "projects/some-project/locations/europe-west4-a/clusters/dask-hpsearch-smoke"


@pytest.fixture(scope="module")
def script() -> Iterator[Any]:
    """The script, as a module."""
    with load_script() as module:
        yield module


def spec_of(script: Any) -> dict[str, Any]:
    """Return the script's spec for a project of tests."""
    return script.spec_for("some-project", "gs://some-bucket/runs", "europe-west4-a")


@dataclass
class Commands:
    """Answers commands in order, and keeps them."""

    answers: list[tuple[int, str]]
    asked: list[str] = field(default_factory=list)

    def __call__(self, *arguments: str) -> tuple[int, str]:
        """Answer the next one."""
        self.asked.append(arguments[0])
        return self.answers.pop(0)


def test_there_are_ten_steps_and_the_last_one_removes_everything(script: Any) -> None:
    """Each has a name, and says which result is expected."""
    assert len(script.STEPS) == 10
    assert len({one.name for one in script.STEPS}) == 10
    assert all(one.must_see for one in script.STEPS)
    assert script.STEPS[-1].always


def test_it_costs_about_a_dollar_and_finds_room(script: Any) -> None:
    """Its pods fit on its nodes, as nodes have been measured."""
    spec = load_gke_spec(spec_of(script))

    assert scheduled(spec) == ALL
    assert estimate(spec).all_nodes_usd < 1.5


def test_a_step_that_fails_skips_those_that_need_it(script: Any) -> None:
    """What was created is removed all the same, and the table says all of it."""

    def fails(_: Any) -> str:
        message = "in some-project there is no room"
        raise script.StepError(message)

    removed: list[str] = []
    steps = (
        script.Step("look", "well", fails, blocking=False),
        script.Step("make", "made", fails),
        script.Step("use", "used", lambda _: "used"),
        script.Step(
            "down", "gone", lambda _: removed.append("x") or "gone", always=True
        ),
    )
    spec, said = spec_of(script), []
    trial = script.Trial(spec, Path("spec.yaml"), Commands([]))

    outcomes = script.run_steps(steps, trial, say=said.append)

    assert [one.state for one in outcomes] == ["failed", "failed", "skipped", "ok"]
    assert removed == ["x"]
    shown = script.table(outcomes, spec)
    assert "StepError: in PROJECT there is no room" in shown
    assert "some-project" not in shown
    assert len([one for one in shown.splitlines() if one.startswith("| ")]) == 5
    assert "1 of 4: look (expected: well)" in said


def test_an_interruption_removes_what_was_created(script: Any) -> None:
    """Ctrl-C ends a step, and skips the others but the last."""

    def interrupted(_: Any) -> str:
        raise KeyboardInterrupt

    steps = (
        script.Step("make", "made", interrupted),
        script.Step("use", "used", lambda _: "used"),
        script.Step("down", "gone", lambda _: "gone", always=True),
    )
    trial = script.Trial(spec_of(script), Path("spec.yaml"), Commands([]))

    outcomes = script.run_steps(steps, trial, say=lambda _: None)

    assert [one.state for one in outcomes] == ["failed", "skipped", "ok"]


@pytest.mark.parametrize(
    ("step", "answers", "seen"),
    [
        ("build_image", [(0, "no digest")], "StepError: no digest"),
        ("create_gke_cluster", [(1, "Quota 'N2_CPUS' exceeded.")], "N2_CPUS"),
        (
            "remove",
            [(0, ""), (0, "x/clusters/dask-hpsearch-smoke: RUNNING")],
            "RUNNING",
        ),
        ("show_status", [(0, "nothing of use")], "nothing of use"),
    ],
)
def test_what_must_be_seen_and_is_not_fails_the_step(
    script: Any, step: str, answers: list[tuple[int, str]], seen: str
) -> None:
    """With the last line of the command."""
    trial = script.Trial(spec_of(script), Path("spec.yaml"), Commands(answers))
    steps = (script.Step("step", "something", getattr(script, step)),)

    (outcome,) = script.run_steps(steps, trial, say=lambda _: None)

    assert outcome.state == "failed"
    assert seen in outcome.seen


def test_a_fit_is_compared_with_a_local_one(script: Any) -> None:
    """The same data and search on both sides; another score is an error."""
    X, y = load_digits(return_X_y=True)
    found = script._search().fit(X[:200], y[:200])
    other = script._search().fit(X[200:400], y[200:400])

    assert "6 candidates equal" in script._same(found, found)
    with pytest.raises(script.StepError, match="scores differ"):
        script._same(found, other)


@pytest.fixture
def terminal(gcs: Proxy, tmp_path: Path, script: Any) -> Iterator[Terminal]:
    """A project, and a terminal whose user has an account there."""
    store = f"gs://{new_bucket(gcs.port)}/runs"
    content = script.spec_for("some-project", store, "europe-west4-a")
    with token_service("token") as tokens:
        environment = {
            "GOOGLE_APPLICATION_CREDENTIALS": str(tokens.credentials(tmp_path)),
            "DASK_HPSEARCH_HOME": str(tmp_path / "home"),
        }
        with terminal_of(
            content, gcs.port, tmp_path, environment=environment
        ) as terminal:
            yield terminal


def without_kubernetes(script: Any, terminal: Terminal) -> list[Any]:
    """Return the steps, with others instead of those that need a Kubernetes."""

    def up(_: Any) -> str:
        labels = ours.for_cluster(
            load_gke_spec(terminal.spec),
            expires_at=time.time() + 5400,
            creation="0" * 32,
        )
        terminal.project.gke.add(PATH, resource_labels=labels)
        return "stood in"

    needing = ("nodes", "Dask", "fit", "submit")
    stand_ins = {"GKE cluster": up, **dict.fromkeys(needing, lambda _: "stood in")}
    return [
        replace(one, function=stand_ins.get(one.name, one.function))
        for one in script.STEPS
    ]


def write_spec(script: Any, terminal: Terminal) -> dict[str, Any]:
    """Write the script's spec, with the fakes' endpoints."""
    store = terminal.where[1].removeprefix("--store=")
    spec: dict[str, Any] = script.spec_for("some-project", store, "europe-west4-a")
    services = ("container", "cloudbuild", "artifactregistry")
    endpoints = dict.fromkeys(services, terminal.project.address)
    terminal.spec.write_text(json.dumps({**spec, "endpoints": endpoints}))
    return spec


def project_for(spec: dict[str, Any]) -> FakeProject:
    """Return a project whose bindings are those of the script's GKE cluster."""
    project, name = FakeProject(), spec["name"]
    reaper = REAPER.replace("reaper-searches-", f"reaper-{name}-")
    expression = ONE_CLUSTER.replace("clusters/searches", f"clusters/{name}")
    condition = {"title": "one-cluster", "expression": expression}
    project.policy.roles[OPERATIONS_ROLE] = [reaper]
    project.policy.conditional = [
        {"role": REAPER_ROLE, "members": [reaper], "condition": condition}
    ]
    bucket = spec["store"].removeprefix("gs://").partition("/")[0]
    folder = FOLDER.replace(f"/{BUCKET}/", f"/{bucket}/")
    project.bucket_policy.conditional = [pods_bound(folder)]
    return project


def test_a_restricted_project_is_proved_as_far_as_fakes_go(
    script: Any, terminal: Terminal, gcs: Proxy
) -> None:
    """Commands reach a project that may not build in its region; nothing is left there."""
    terminal.project.builds.restricted = {"europe-west4"}
    spec = write_spec(script, terminal)
    with project_at(project_for(spec)) as url:
        addresses = [f"--address={service}={url}" for service in SERVICES]

        def command(*arguments: str) -> tuple[int, str]:
            more = addresses if arguments[0] == "doctor" else []
            done = terminal.run(*arguments, *more)
            return done.returncode, done.stdout + done.stderr

        trial = script.Trial(spec, terminal.spec, command)
        steps = without_kubernetes(script, terminal)
        outcomes = script.run_steps(steps, trial, say=lambda _: None)

    seen = {one.step.name: one.seen for one in outcomes}
    assert [one.state for one in outcomes] == ["ok"] * 10, seen
    assert "does not build in europe-west4" in seen["image"]
    assert "expires" in seen["status"]
    assert terminal.project.gke.clusters == {}
    bucket = spec["store"].removeprefix("gs://").partition("/")[0]
    assert names_in(gcs.port, bucket) == []
    shown = script.table(outcomes, spec)
    assert bucket not in shown
    assert "| 10 | down | ok |" in shown


def with_owner(
    steps: list[Any], project: FakeProject, name: str, doctor: Callable[[], str]
) -> list[Any]:
    """Let the owner run the commands that are printed once there is a GKE cluster."""

    def replaced(step: Any) -> Any:
        def up(trial: Any) -> str:
            seen: str = step.function(trial)
            project.cluster_came(name)
            gcloud.run(project, doctor())
            return seen

        return replace(step, function=up) if step.name == "GKE cluster" else step

    return [replaced(one) for one in steps]


@pytest.mark.timeout(300)
def test_a_fresh_project_is_proved_by_a_user_who_is_not_its_owner(
    script: Any, terminal: Terminal, gcs: Proxy
) -> None:
    """No identity pool, no repository, no builds in the region; rights as documented."""
    cloud, project = terminal.project, fresh_project()
    cloud.builds.restricted = {REGION}
    cloud.traffic.lacking = project.lacking
    spec = write_spec(script, terminal)
    with project_at(project) as url:
        addresses = [f"--address={service}={url}" for service in SERVICES]

        def command(*arguments: str) -> tuple[int, str]:
            more = addresses if arguments[0] == "doctor" else []
            done = terminal.run(*arguments, *more)
            return done.returncode, done.stdout + done.stderr

        def doctor() -> str:
            return command("doctor", str(terminal.spec))[1]

        trial = script.Trial(spec, terminal.spec, command)
        steps = without_kubernetes(script, terminal)
        steps = with_owner(steps, project, spec["name"], doctor)
        outcomes = script.run_steps(steps, trial, say=lambda _: None)
        after = doctor()

    seen = {one.step.name: one.seen for one in outcomes}
    assert [one.state for one in outcomes] == ["ok"] * 10, seen
    assert "bindings wait for the project's first GKE cluster" in seen["doctor"]
    assert "does not build in europe-west4" in seen["image"]
    assert cloud.traffic.named("CreateRepository")
    assert cloud.gke.clusters == {}
    bucket = spec["store"].removeprefix("gs://").partition("/")[0]
    assert names_in(gcs.port, bucket) == []
    assert "has everything that" in after
    assert "Not yet possible" not in after


@pytest.mark.parametrize("bind", [False, True])
def test_bindings_are_set_unless_that_is_left_out(
    script: Any,
    bind: bool,  # noqa: FBT001 (a parameter)
) -> None:
    """``up`` is told so."""
    asked: list[tuple[str, ...]] = []

    def command(*arguments: str) -> tuple[int, str]:
        asked.append(arguments)
        output = "it is ready, and expires soon\nkubeconfig: config\nI1130 goaway\n"
        return 0, output

    trial = script.Trial(spec_of(script), Path("spec.yaml"), command, bind=bind)

    script.create_gke_cluster(trial)

    assert ("--bind" in asked[0]) is bind
    assert trial.kubeconfig == "config"


def test_problems_of_a_project_are_in_the_table(script: Any) -> None:
    """Not the last line, which may be a command that can wait."""
    output = (
        "1. billing: no account\n   gcloud a\n?  could not check x\nNot yet:\n-  b\n"
    )
    commands = Commands([(1, output)])
    trial = script.Trial(spec_of(script), Path("spec.yaml"), commands)
    steps = (script.Step("doctor", "no problems", script.check_project),)

    (outcome,) = script.run_steps(steps, trial, say=lambda _: None)

    assert outcome.seen == "StepError: 1. billing: no account; ?  could not check x"
