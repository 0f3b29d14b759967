"""Prove dask-hpsearch on your Google Cloud project: ten steps, and one table to send back.

Takes under an hour, and costs about a dollar. docs/proving-on-gke.md has what you need before.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import json
import platform
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask_hpsearch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

NAME = "dask-hpsearch-smoke"
DATA_ROWS = 600
WAIT_S = 900.0  # for a node that the autoscaler adds, and the image on it
_LONGEST = 160


class StepError(Exception):
    """A step has not shown what it must show."""


@dataclass(slots=True)
class Trial:
    """What the steps share.

    Attributes
    ----------
    spec : dict
        Of the GKE cluster; it is also in ``file``.
    file : Path
    command : callable
        Runs ``dask-hpsearch`` with arguments; returns its exit code and output.
    bind : bool
        Whether ``up`` sets the IAM bindings of pods, if you may.
    kubeconfig : str
        Path, once the GKE cluster is up.
    cluster, client : object
        Of Dask, once it is there.
    expected : object
        The search, fitted on this machine.
    """

    spec: dict[str, Any]
    file: Path
    command: Callable[..., tuple[int, str]]
    bind: bool = True
    kubeconfig: str = ""
    cluster: Any = None
    client: Any = None
    expected: Any = field(default=None, repr=False)

    def run(self, *arguments: str) -> str:
        """Run a command; an exit code other than 0 fails the step."""
        code, output = self.command(*arguments)
        if code:
            raise StepError(_problems(output) or f"exit code {code}")
        return output


@dataclass(frozen=True, slots=True)
class Step:
    """A step and its expected result.

    Attributes
    ----------
    name, must_see : str
    function : callable
        Returns the result that was seen; raises if it is not the expected one.
    blocking : bool
        Whether the next steps make no sense if it fails.
    always : bool
        Whether it runs after a failure, too.
    """

    name: str
    must_see: str
    function: Callable[[Trial], str]
    blocking: bool = True
    always: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a step went: "ok", "failed" or "skipped"."""

    step: Step
    state: str
    seen: str = ""
    seconds: float = 0.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run all steps, remove everything, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--project", required=True, help="ID of your project")
    parser.add_argument("--store", required=True, help="gs://BUCKET/FOLDER")
    parser.add_argument("--location", required=True, help="zone, as europe-west4-a")
    parser.add_argument(
        "--no-bind",
        action="store_true",
        help="print the commands that set missing IAM bindings, instead of setting them",
    )
    arguments = parser.parse_args(argv)
    spec = spec_for(arguments.project, arguments.store, arguments.location)
    with tempfile.TemporaryDirectory(prefix="gke-smoke-test-") as folder:
        file = Path(folder) / "spec.yaml"
        file.write_text(json.dumps(spec))  # JSON is YAML
        trial = Trial(spec, file, run_command, bind=not arguments.no_bind)
        outcomes = run_steps(STEPS, trial, say=print)
    print(table(outcomes, spec))
    return int(any(one.state != "ok" for one in outcomes))


def spec_for(project: str, store: str, location: str) -> dict[str, Any]:
    """Return the spec of a small GKE cluster: two system nodes, two spot workers at most."""
    return {
        "project": project,
        "store": store,
        "location": location,
        "name": NAME,
        "ttl_hours": 1.5,  # it ends itself then, whatever happens here
        "pools": {
            "system": {"max_nodes": 2},
            "workers": {"machine_type": "e2-standard-4", "max_nodes": 2},
        },
        "dask": {
            "workers": {
                "cpu": 3,
                "memory": "10Gi",
                "slots": 3,
                "cache": "10Gi",
                "max": 2,
            }
        },
    }


def run_command(*arguments: str) -> tuple[int, str]:
    """Run ``dask-hpsearch``, and show its output as it comes."""
    command = [sys.executable, "-m", "dask_hpsearch.cli", *arguments]
    lines = []
    with subprocess.Popen(  # noqa: S603 (this interpreter, without a shell)
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        for line in process.stdout or ():
            sys.stdout.write(f"    {line}")
            lines.append(line)
    return process.returncode, "".join(lines)


def run_steps(
    steps: Sequence[Step], trial: Trial, *, say: Callable[[str], Any]
) -> list[Outcome]:
    """Run steps in their order; after a failure only those that always run."""
    outcomes: list[Outcome] = []
    stopped = False
    for number, step in enumerate(steps, 1):
        if stopped and not step.always:
            outcomes.append(Outcome(step, "skipped"))
            continue
        say(f"{number} of {len(steps)}: {step.name} (expected: {step.must_see})")
        outcome = _attempt(step, trial)
        say(f"    {outcome.state}: {outcome.seen}")
        outcomes.append(outcome)
        stopped = stopped or (outcome.state == "failed" and step.blocking)
    return outcomes


def _attempt(step: Step, trial: Trial) -> Outcome:
    start = time.monotonic()
    try:
        seen, state = step.function(trial), "ok"
    except KeyboardInterrupt:
        seen, state = "interrupted", "failed"
    except Exception as error:  # noqa: BLE001 (the table says so, and the rest is removed)
        seen, state = f"{type(error).__name__}: {error}", "failed"
    return Outcome(step, state, seen, time.monotonic() - start)


def table(outcomes: Sequence[Outcome], spec: dict[str, Any]) -> str:
    """Return the table to send back; it names neither the project nor the bucket."""
    bucket = spec["store"].removeprefix("gs://").partition("/")[0]

    def cell(text: str) -> str:
        text = " ".join(text.split()).replace("|", "/")
        text = text.replace(spec["project"], "PROJECT").replace(bucket, "BUCKET")
        return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"

    versions = (
        f"dask-hpsearch {dask_hpsearch.__version__}, Python {platform.python_version()}, "
        f"{spec['location']}, {dt.datetime.now(dt.UTC):%Y-%m-%d}"
    )
    rows = [
        f"| {number} | {one.step.name} | {one.state} | {one.seconds:.0f} | "
        f"{cell(one.step.must_see)} | {cell(one.seen)} |"
        for number, one in enumerate(outcomes, 1)
    ]
    head = [
        "| | step | state | seconds | expected | seen |",
        "|---|---|---|---|---|---|",
    ]
    return "\n".join(["", versions, "", *head, *rows])


def check_project(trial: Trial) -> str:
    """Ask doctor. Bindings that wait for the project's first GKE cluster are no problem."""
    output = trial.run("doctor", str(trial.file))
    waits = "Not yet possible" in output
    more = ", and bindings wait for the project's first GKE cluster" if waits else ""
    return f"no problems{more}"


def show_price(trial: Trial) -> str:
    """Estimate the cost."""
    return trial.run("cost", str(trial.file)).splitlines()[0]


def build_image(trial: Trial) -> str:
    """Build the image, or find it; say where it was built."""
    output = trial.run("image", "build", "--cloud", "--spec", str(trial.file))
    _need("@sha256:" in output, _last_line(output))
    elsewhere = [line for line in output.splitlines() if "does not build in" in line]
    digest = "sha256:" + output.rpartition("@sha256:")[2].split()[0][:12]
    return "; ".join([digest, *elsewhere])


def create_gke_cluster(trial: Trial) -> str:
    """Create the GKE cluster with both pools, operator and reaper."""
    bind = ["--bind"] if trial.bind else []
    output = trial.run("up", str(trial.file), *bind)
    ready = [line for line in output.splitlines() if "is ready, and expires" in line]
    _need(ready, _last_line(output))
    # Lines of libraries may follow.
    trial.kubeconfig = re.findall(r"^kubeconfig: (.+)$", output, re.MULTILINE)[-1]
    return ready[0]


def measure_nodes(trial: Trial) -> str:
    """Compare what nodes have for pods with the table of the package."""
    from dask_hpsearch.clusters.kubernetes.api import connected
    from dask_hpsearch.config.machines import machine
    from dask_hpsearch.config.quantities import cpu_millis, memory_bytes

    async def list_nodes() -> list[dict[str, Any]]:
        async with connected(kubeconfig=trial.kubeconfig) as api:
            return await api.list("Node")

    seen, less = [], False
    for node in asyncio.run(list_nodes()):
        kind = node["metadata"]["labels"]["node.kubernetes.io/instance-type"]
        has = node["status"]["allocatable"]
        size = machine(kind)
        seen.append(f"{kind}: cpu {has['cpu']}, memory {has['memory']}")
        if size is not None:
            less |= cpu_millis(has["cpu"]) < size.allocatable.cpu
            less |= memory_bytes(has["memory"]) < size.allocatable.memory
    text = "; ".join(sorted(set(seen)))
    _need(seen and not less, f"less than expected, or no node: {text}")
    return text


def start_dask(trial: Trial) -> str:
    """Start a Dask cluster with one worker, for which a node is added."""
    trial.cluster = dask_hpsearch.gke_cluster(
        trial.file, n_workers=1, keep_gke=True, timeout=WAIT_S
    )
    trial.client = trial.cluster.get_client()
    trial.client.wait_for_workers(1, timeout=WAIT_S)
    return f"{len(trial.client.scheduler_info()['workers'])} worker"


def fit(trial: Trial) -> str:
    """Fit a search on the worker, and the same one here."""
    X, y = _data()
    trial.expected = _search().fit(X, y)
    found = dask_hpsearch.DaskSearchCV(_search(), client=trial.client).fit(X, y)
    return _same(found, trial.expected)


def submit(trial: Trial) -> str:
    """Submit the search: its driver is a Job, and its data are in the bucket."""
    store = trial.spec["store"]
    X, y = dask_hpsearch.upload(*_data(), store=store)
    search = dask_hpsearch.DaskSearchCV(
        _search(), client=trial.client, store=store, task_name="smoke"
    )
    run = search.submit(X, y)
    expected = trial.expected or _search().fit(*_data())
    return f"{_same(run.result(), expected)}; {run.state}"


def show_status(trial: Trial) -> str:
    """Show the end and the cost so far, as from a machine that has neither."""
    output = trial.run("status", str(trial.file))
    lines = [one for one in output.splitlines() if "expires" in one or "cost" in one]
    _need(any("expires" in one for one in lines), _last_line(output))
    return "; ".join(one.rpartition("/")[2] for one in lines)


def remove(trial: Trial) -> str:
    """Remove GKE cluster and image; the bucket keeps what is yours."""
    try:
        for one in (trial.client, trial.cluster):
            if one is not None:
                one.close()
    finally:
        trial.run("down", str(trial.file))
    left = trial.run("ls", "--spec", str(trial.file))
    _need(f"clusters/{NAME}:" not in left, _last_line(left))
    return "nothing is left"


STEPS = (
    Step("doctor", "no problems", check_project, blocking=False),
    Step("cost", "dollars an hour", show_price, blocking=False),
    Step("image", "a digest, and where it was built", build_image),
    Step("GKE cluster", "ready, with an end", create_gke_cluster),
    Step("nodes", "at least what the table says", measure_nodes, blocking=False),
    Step("Dask", "1 worker", start_dask),
    Step("fit", "equal to a local fit", fit, blocking=False),
    Step("submit", "equal to a local fit; finished", submit, blocking=False),
    Step("status", "an end, and a cost", show_status, blocking=False),
    Step("down", "nothing is left", remove, always=True),
)


def _data() -> tuple[Any, Any]:
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    return X[:DATA_ROWS], y[:DATA_ROWS]


def _search() -> Any:
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import GridSearchCV

    space = {"max_depth": [2, 4, 8], "min_samples_split": [2, 8]}
    return GridSearchCV(RandomForestClassifier(20, random_state=0), space, cv=3)


def _same(found: Any, expected: Any) -> str:
    """Check that two fitted searches have the same scores."""
    scores = [one.cv_results_["mean_test_score"].tolist() for one in (found, expected)]
    _need(scores[0] == scores[1], f"scores differ: {scores}")
    return f"{len(scores[0])} candidates equal, best {found.best_score_:.4f}"


def _need(holds: object, otherwise: str) -> None:
    if not holds:
        raise StepError(otherwise)


def _problems(output: str) -> str:
    """Return the problems that doctor has found; of other commands, the last line."""
    found = [line for line in output.splitlines() if re.match(r"\d+\. |\?  ", line)]
    return "; ".join(found) or _last_line(output)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


if __name__ == "__main__":
    sys.exit(main())
