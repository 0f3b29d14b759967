"""Bayesian search without a barrier: ``python -m benchmarks bayes [--seeds 5]``.

Hartmann's function of six parameters (its best is 3.32), 64 evaluations of about 0.5 s,
heavy-tailed, on 8 slots. Evaluations sleep: what is compared is how contenders keep slots
busy, and what they find. A contender's wall time is set against list scheduling of the
evaluations that it made itself: a point's time is drawn from the point.

Then 256 simulated slots and 1,024 evaluations: the share of slots that are in use until
the last evaluation begins.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import time
import warnings
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any, Self

import joblib
import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin

from benchmarks.simulated import SimulatedSlots, list_schedule_s

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

N_SLOTS, MEAN_S, MOST_S, SIGMA = 8, 0.5, 4.0, 1.0
NAMES = tuple(f"x{place}" for place in range(6))
WEIGHTS = np.array([1, 1.2, 3, 3.2])
WIDTHS = np.array(
    [
        [10, 3, 17, 3.5, 1.7, 8],
        [0.05, 10, 17, 0.1, 8, 14],
        [3, 3.5, 1.7, 10, 17, 8],
        [17, 8, 0.05, 10, 0.1, 14],
    ]
)
CENTRES = 1e-4 * np.array(
    [
        [1312, 1696, 5569, 124, 8283, 5886],
        [2329, 4135, 8307, 3736, 1004, 9991],
        [2348, 1451, 3522, 2883, 3047, 6650],
        [4047, 8828, 8732, 5743, 1091, 381],
    ]
)
Point = dict[str, float]


def hartmann(point: Point) -> float:
    """Hartmann's function of six parameters between 0 and 1, higher is better."""
    x = np.array([point[name] for name in NAMES])
    return float(WEIGHTS @ np.exp(-(WIDTHS * (x - CENTRES) ** 2).sum(axis=1)))


def seconds_of(point: Point) -> float:
    """How long a point takes: log-normal, drawn from the point itself."""
    values = repr([point[name] for name in NAMES]).encode()
    seed = int.from_bytes(hashlib.sha256(values).digest()[:8], "big")
    scale = MEAN_S * np.exp(-(SIGMA**2) / 2)
    drawn = scale * np.random.default_rng(seed).lognormal(sigma=SIGMA)
    return float(min(drawn, MOST_S))


class Hartmann(RegressorMixin, BaseEstimator):
    """Sleeps, and scores by Hartmann's function."""

    def __init__(  # noqa: PLR0917 (a parameter for each dimension)
        self,
        x0: float = 0.0,
        x1: float = 0.0,
        x2: float = 0.0,
        x3: float = 0.0,
        x4: float = 0.0,
        x5: float = 0.0,
    ) -> None:
        self.x0 = x0
        self.x1 = x1
        self.x2 = x2
        self.x3 = x3
        self.x4 = x4
        self.x5 = x5

    def fit(self, X: Any, y: Any) -> Self:
        """Sleep."""
        del X, y
        time.sleep(seconds_of(self.get_params()))
        self.fitted_ = True
        return self

    def score(self, X: Any, y: Any) -> float:
        """Score the parameters."""
        del X, y
        return hartmann(self.get_params())


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one search took and found."""

    wall_s: float
    bound_s: float
    best: float

    @classmethod
    def of(cls, wall_s: float, points: Sequence[Point]) -> Outcome:
        """Compare with list scheduling of these points."""
        bound_s = list_schedule_s([seconds_of(point) for point in points], N_SLOTS)
        return cls(wall_s, bound_s, max(map(hartmann, points)))


Run = Any


def search(seed: int, n_iter: int, n_points: int) -> Any:
    """Return a BayesSearchCV with skopt's defaults."""
    from skopt import BayesSearchCV

    return BayesSearchCV(
        Hartmann(),
        dict.fromkeys(NAMES, (0.0, 1.0, "uniform")),
        n_iter=n_iter,
        n_points=n_points,
        n_jobs=N_SLOTS,
        cv=[(np.arange(2), np.arange(2))],
        refit=False,
        random_state=seed,
    )


@contextlib.contextmanager
def ours() -> Iterator[Run]:
    """DaskSearchCV on one worker with a slot for each evaluation."""
    from dask_hpsearch import DaskSearchCV, local_cluster

    def run(seed: int, n_iter: int) -> Outcome:
        found = DaskSearchCV(search(seed, n_iter, 1), client=client)
        return _timed(found, n_iter)

    cluster = local_cluster(1, N_SLOTS, dashboard_address=None)
    with cluster, cluster.get_client() as client:
        yield run


@contextlib.contextmanager
def skopt(n_points: int) -> Iterator[Run]:
    """Run skopt's own loop on joblib's Dask backend."""

    def run(seed: int, n_iter: int) -> Outcome:
        with joblib.parallel_config("dask"):
            return _timed(search(seed, n_iter, n_points), n_iter)

    with _threads():
        yield run


@contextlib.contextmanager
def optuna() -> Iterator[Run]:
    """Run Optuna's TPE, asked and told as a Dask client's futures come in."""
    import optuna as library
    from distributed import as_completed

    library.logging.set_verbosity(library.logging.WARNING)

    def ask(study: Any, client: Any) -> tuple[Any, Any]:
        trial = study.ask()
        point = {name: trial.suggest_float(name, 0, 1) for name in NAMES}
        return client.submit(_evaluate, point, pure=False), trial

    def run(seed: int, n_iter: int) -> Outcome:
        sampler = library.samplers.TPESampler(seed=seed, constant_liar=True)
        study = library.create_study(direction="maximize", sampler=sampler)
        begun = time.perf_counter()
        trials = dict(ask(study, client) for _ in range(min(N_SLOTS, n_iter)))
        coming = as_completed(list(trials))
        for future in coming:
            study.tell(trials[future], future.result())
            if len(trials) < n_iter:
                more, trial = ask(study, client)
                trials[more] = trial
                coming.add(more)
        wall_s = time.perf_counter() - begun
        return Outcome.of(wall_s, [trial.params for trial in trials.values()])

    with _threads() as client:
        yield run


@contextlib.contextmanager
def _threads() -> Iterator[Any]:
    """Slots that can sleep: threads in two workers."""
    from distributed import LocalCluster

    cluster = LocalCluster(
        n_workers=2, threads_per_worker=N_SLOTS // 2, dashboard_address=None
    )
    with cluster, cluster.get_client() as client:
        yield client


def _timed(estimator: Any, n_iter: int) -> Outcome:
    begun = time.perf_counter()
    fitted = estimator.fit(np.zeros((2, 1)), np.zeros(2))
    wall_s = time.perf_counter() - begun
    points = fitted.cv_results_["params"]
    if len(points) != n_iter:
        raise AssertionError(points)
    return Outcome.of(wall_s, points)


def _evaluate(point: Point) -> float:
    time.sleep(seconds_of(point))
    return hartmann(point)


CONTENDERS: dict[str, Callable[[], Any]] = {
    "dask_hpsearch": ours,
    "optuna": optuna,
    "skopt-8": lambda: skopt(8),
    "skopt-1": lambda: skopt(1),
}


def simulate(seed: int, *, slots: int, n_iter: int, mean_s: float) -> tuple[Any, Any]:
    """Explore on simulated slots; return them and the space."""
    from skopt import Optimizer

    from dask_hpsearch.strategies.bayes.asker import Asker
    from dask_hpsearch.strategies.bayes.model_process import ModelProcess
    from dask_hpsearch.strategies.explorer import Explorer, Space

    optimizer = Optimizer([(0.0, 1.0)] * len(NAMES), random_state=seed)
    points: list[Point] = []

    def seconds(candidate: int, _split: int) -> float:
        return seconds_of(points[candidate]) * mean_s / MEAN_S

    def result(candidate: int, split: int) -> dict[str, Any]:
        took = {"fit_time": seconds(candidate, split), "score_time": 0.0}
        return {"test_scores": hartmann(points[candidate])} | took

    process = ModelProcess()
    with (
        contextlib.closing(process),
        SimulatedSlots(slots, seconds=seconds, result=result) as simulated,
    ):
        asker = Asker(0, optimizer, process=process)
        space = Space(0, list(NAMES), n_iter, optimizer, asker)
        Explorer(
            [space],
            simulated,
            n_splits=1,
            open_candidate=points.append,
            value=lambda results: -results[0]["test_scores"],
            asks=_NoLog(),
        ).run()
    return simulated, space


class _NoLog:
    """Keeps no asks."""

    def asked(self, *_: Any) -> None:
        """Know of none."""

    def record_ask(self, *_: Any) -> None:
        """Do nothing."""

    def told(self, *_: Any) -> None:
        """Do nothing."""


def compare(names: Sequence[str], *, seeds: int, n_iter: int) -> None:
    """Run the contenders seed by seed, and print a table."""
    outcomes: dict[str, list[Outcome]] = {name: [] for name in names}
    with contextlib.ExitStack() as stack:
        runs = {name: stack.enter_context(CONTENDERS[name]()) for name in names}
        for name in {"dask_hpsearch", "optuna"} & runs.keys():
            runs[name](0, N_SLOTS)  # slots start, modules are imported
        for seed in range(seeds):
            for name, run in runs.items():
                found = run(seed, n_iter)
                outcomes[name].append(found)
                print(f"  {name} {seed}: {found}", flush=True)
    print(f"| {n_iter} evaluations, {N_SLOTS} slots | wall s | ÷ bound | best |")
    print("|---|---|---|---|")
    for name, found in outcomes.items():
        columns = (
            [one.wall_s for one in found],
            [one.wall_s / one.bound_s for one in found],
            [one.best for one in found],
        )
        print("| " + " | ".join([name, *map(_spread, columns)]) + " |")


def _spread(values: Sequence[float]) -> str:
    return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare, and simulate."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks bayes", description=__doc__
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=list(CONTENDERS))
    parser.add_argument("--quick", action="store_true", help="few evaluations")
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    n_iter = 12 if options.quick else 64
    if options.only:
        compare(options.only, seeds=options.seeds, n_iter=n_iter)
    for mean_s in (0.5, 5.0):
        slots, space = simulate(0, slots=256, n_iter=1024, mean_s=mean_s)
        print(
            f"256 slots, 1,024 evaluations of {mean_s:g} s: {100 * slots.busy:.1f} % of "
            f"slots in use, points {dict(space.asker.sources)}, "
            f"best {-min(space.optimizer.yi):.2f}"
        )


if __name__ == "__main__":
    main()
