"""Optuna on a cluster: ``python -m benchmarks.cases.optuna_search [--seeds 10]``.

The evaluations of `bayes` (Hartmann's function of six parameters, 64 evaluations of about
0.5 s, heavy-tailed, 8 slots), asked by Optuna's TPE: by OptunaSearchCV on one worker, by
OptunaSearchCV itself with ``n_jobs=8`` (threads that sleep), and by BayesSearchCV with
``sampler="tpe"``.
"""

from __future__ import annotations

import argparse
import contextlib
import time
import warnings
from dataclasses import dataclass
from statistics import mean, median
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.cases.bayes import (
    N_SLOTS,
    NAMES,
    Hartmann,
    hartmann,
    search,
    seconds_of,
)
from benchmarks.simulated import list_schedule_s

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Run = Callable[[int, int], "Outcome"]

X, Y = np.zeros((2, 1)), np.zeros(2)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one search took and found; the bound is list scheduling of its own points."""

    wall_s: float
    bound_s: float
    best: float

    @classmethod
    def of(cls, wall_s: float, points: Sequence[dict[str, float]]) -> Outcome:
        """Compare with list scheduling of these points."""
        bound_s = list_schedule_s([seconds_of(point) for point in points], N_SLOTS)
        return cls(wall_s, bound_s, max(map(hartmann, points)))


def optuna_search(seed: int, n_trials: int) -> Any:
    """Return an OptunaSearchCV with its defaults."""
    from optuna.distributions import FloatDistribution
    from optuna_integration import OptunaSearchCV

    return OptunaSearchCV(
        Hartmann(),
        {name: FloatDistribution(0, 1) for name in NAMES},
        cv=[(np.arange(2), np.arange(2))],
        n_jobs=N_SLOTS,
        n_trials=n_trials,
        random_state=seed,
        refit=False,
    )


@contextlib.contextmanager
def ours() -> Iterator[Run]:
    """OptunaSearchCV on one worker with a slot for each evaluation."""
    from dask_hpsearch import DaskSearchCV, local_cluster

    def run(seed: int, n_trials: int) -> Outcome:
        found = DaskSearchCV(optuna_search(seed, n_trials), client=client)
        return _timed(found, lambda fitted: [one.params for one in fitted.trials_])

    cluster = local_cluster(1, N_SLOTS, dashboard_address=None)
    with cluster, cluster.get_client() as client:
        yield run


@contextlib.contextmanager
def sampler() -> Iterator[Run]:
    """BayesSearchCV whose candidates are Optuna's, in the same slots."""
    from dask_hpsearch import DaskSearchCV, local_cluster

    def run(seed: int, n_trials: int) -> Outcome:
        bayes = search(seed, n_trials, 1)
        found = DaskSearchCV(bayes, client=client, sampler="tpe")
        return _timed(found, lambda fitted: list(fitted.cv_results_["params"]))

    cluster = local_cluster(1, N_SLOTS, dashboard_address=None)
    with cluster, cluster.get_client() as client:
        yield run


@contextlib.contextmanager
def plain() -> Iterator[Run]:
    """OptunaSearchCV itself, in threads of this process."""

    def run(seed: int, n_trials: int) -> Outcome:
        found = optuna_search(seed, n_trials)
        return _timed(found, lambda fitted: [one.params for one in fitted.trials_])

    yield run


CONTENDERS: dict[str, Callable[[], Any]] = {
    "dask_hpsearch, OptunaSearchCV": ours,
    "OptunaSearchCV, n_jobs=8": plain,
    "dask_hpsearch, sampler='tpe'": sampler,
}


def _timed(estimator: Any, points_of: Callable[[Any], Any]) -> Outcome:
    begun = time.perf_counter()
    fitted = estimator.fit(X, Y)
    wall_s = time.perf_counter() - begun
    return Outcome.of(wall_s, points_of(fitted))


def compare(seeds: int, n_trials: int) -> None:
    """Run the contenders seed by seed, and print a table."""
    outcomes: dict[str, list[Outcome]] = {name: [] for name in CONTENDERS}
    with contextlib.ExitStack() as stack:
        runs = {name: stack.enter_context(make()) for name, make in CONTENDERS.items()}
        for run in runs.values():
            run(0, N_SLOTS)  # slots start, modules are imported
        for seed in range(seeds):
            for name, run in runs.items():
                found = run(seed, n_trials)
                outcomes[name].append(found)
                print(f"  {name} {seed}: {found}", flush=True)
    print("| contender | wall s | ÷ bound | best | mean of the best |")
    print("|---|---|---|---|---|")
    for name, found in outcomes.items():
        columns = (
            [one.wall_s for one in found],
            [one.wall_s / one.bound_s for one in found],
            [one.best for one in found],
        )
        best = f"{mean(one.best for one in found):.3f}"
        print("| " + " | ".join([name, *map(_spread, columns), best]) + " |")


def _spread(values: Sequence[float]) -> str:
    return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare."""
    import optuna

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--quick", action="store_true", help="few evaluations")
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    compare(options.seeds, 12 if options.quick else 64)


if __name__ == "__main__":
    main()
