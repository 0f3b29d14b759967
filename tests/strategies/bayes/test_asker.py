from __future__ import annotations

import math
import pickle
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skopt import Optimizer
from skopt.learning import ExtraTreesRegressor
from skopt.space import Categorical, Integer, Real

from dask_hpsearch.strategies.bayes.asker import Asker, look_ahead
from dask_hpsearch.strategies.bayes.model_process import ModelProcess
from dask_hpsearch.strategies.bayes.surrogate import Known, Surrogate, without_failures

SPACE = [Real(1e-3, 1e3, "log-uniform"), Integer(1, 9), Categorical(["a", "b", None])]


def known(optimizer: Any, n: int, *, pending: int = 0) -> Known:
    """Some evaluated points, every fifth failed, and some pending."""
    points = optimizer.space.rvs(n + pending, random_state=1)
    values = [
        math.nan if place % 5 == 4 else math.log10(point[0]) ** 2 + point[1]
        for place, point in enumerate(points[:n])
    ]
    return Known(points[:n], values, points[n:])


@pytest.mark.filterwarnings("ignore")  # the explorer sets filters, for the process
@pytest.mark.parametrize("n_points", [1, 3, 12])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"acq_func": "LCB"},
        {"base_estimator": "ET", "acq_func": "EI"},
        {"base_estimator": "RF", "acq_func": "PI"},
        {"acq_func": "MES"},
    ],
    ids=str,
)
def test_points_are_new_and_of_the_space(
    settings: dict[str, Any], n_points: int
) -> None:
    """Every model and acquisition function of skopt suggests points to evaluate."""
    quick = {"acq_optimizer_kwargs": {"n_points": 200}}
    optimizer = Optimizer(SPACE, random_state=0, **quick, **settings)
    seen = known(optimizer, 12, pending=3)

    found = Surrogate(optimizer, seed=0).suggest(seen, n_points, 5)

    assert len(found.points) == n_points
    assert len(found.reserve) == 5
    assert found.model is not None
    for point in found.points:
        assert point in optimizer.space
        assert point not in [*seen.points, *seen.pending]
    assert len({repr(point) for point in found.points}) == n_points


@pytest.mark.filterwarnings("ignore")
def test_a_constraint_holds() -> None:
    """Points that the space's constraint excludes are not suggested."""
    quick = {"acq_optimizer_kwargs": {"n_points": 100}}
    optimizer = Optimizer(
        SPACE, space_constraint=lambda point: point[1] < 4, random_state=0, **quick
    )

    found = Surrogate(optimizer, seed=0).suggest(known(optimizer, 10), 2, 8)

    assert all(point[1] < 4 for point in [*found.points, *found.reserve])


@pytest.mark.filterwarnings("ignore")
def test_a_small_space_may_repeat() -> None:
    """When every point is known there is still something to suggest."""
    optimizer = Optimizer([Integer(1, 3)], random_state=0)
    seen = Known([[1], [2], [3]], [3.0, 2.0, 1.0])

    found = Surrogate(optimizer, seed=0).suggest(seen, 2, 2)

    assert {point[0] for point in found.points} <= {1, 2, 3}


@pytest.mark.filterwarnings("ignore")
def test_models_are_learnt_at_growing_intervals() -> None:
    """Hyperparameters are learnt again when there is enough that is new."""
    quick = {"acq_optimizer_kwargs": {"n_points": 50}}
    optimizer = Optimizer([Real(0, 1)], random_state=0, **quick)
    surrogate = Surrogate(optimizer, seed=0)
    points = optimizer.space.rvs(40, random_state=0)
    values = [float(np.sin(9 * point[0])) for point in points]

    learnt = [
        surrogate.suggest(Known(points[:n], values[:n]), 1, 0).model is not None
        for n in range(20, 40)
    ]

    assert learnt[0]
    assert 2 <= sum(learnt) < 18


@pytest.mark.parametrize("generator", ["random", "lhs"])
def test_initial_points_are_skopts(generator: str) -> None:
    """Until the models begin, a seed gives the candidates of skopt's own loop."""
    settings = {"n_initial_points": 8, "initial_point_generator": generator}
    expected = Optimizer(SPACE, random_state=3, **settings)
    asker = Asker(0, Optimizer(SPACE, random_state=3, **settings))

    for _ in range(8):
        expected.cache_ = {}
        (plain,) = expected.ask(n_points=1)
        expected.tell(plain, 0.0, fit=False)
        point = asker.take(wait=False, most=1)
        assert point == plain
        asker.note_asked(point)


def test_without_a_model_nobody_waits() -> None:
    """While a model is fitted, a slot that has waited long enough gets a point all the same."""
    optimizer = Optimizer([Real(0, 1)], n_initial_points=2, random_state=0)
    asker = Asker(0, optimizer, process=NeverReady())  # type: ignore[arg-type]
    asker.start(lambda: None)
    for value in range(20):
        point = asker.take(wait=False, most=256)
        assert point is not None
        asker.note_asked(point)
        asker.told(point, float(value))

    assert asker.take(wait=True, most=256) is None
    assert asker.take(wait=False, most=256) is not None
    asker.close()


class NeverReady:
    """A process that does not start."""

    def is_ready(self) -> bool:
        return False


def test_a_process_suggests_as_this_one_does() -> None:
    """The surrogate goes to the process with all that it has learnt."""
    few = ExtraTreesRegressor(n_estimators=5, random_state=0)
    optimizer = Optimizer(SPACE, base_estimator=few, acq_func="EI", random_state=0)
    seen = known(optimizer, 12, pending=2)
    here, there = Surrogate(optimizer, seed=5), ModelProcess()
    ready = threading.Event()
    while not there.is_ready():
        ready.wait(0.05)

    there.give(0, here)
    found = there.suggest(0, seen, 2, 3)

    expected = here.suggest(seen, 2, 3)
    assert found.points == expected.points
    assert found.reserve == expected.reserve
    there.close()


def test_a_process_tells_what_went_wrong() -> None:
    """An error there is one here; the process can be used again."""
    optimizer = Optimizer(SPACE, base_estimator="ET", random_state=0)
    process = ModelProcess()
    ready = threading.Event()
    while not process.is_ready():
        ready.wait(0.05)
    process.give(0, Surrogate(optimizer, seed=0))

    with pytest.raises(RuntimeError, match="Error"):
        process.suggest(0, Known(), 1, 1)

    assert process.suggest(0, known(optimizer, 10), 1, 1).points
    process.close()


@given(
    cost_s=st.floats(0, 100), interval_s=st.floats(0, 100), most=st.integers(1, 1000)
)
def test_look_ahead_covers_a_model(cost_s: float, interval_s: float, most: int) -> None:
    """As many points are ready as are taken meanwhile, within the bound."""
    ahead = look_ahead(cost_s=cost_s, interval_s=interval_s, most=most)

    assert 1 <= ahead <= most
    assert ahead == most or ahead * interval_s >= cost_s


@given(st.lists(st.floats(-1e6, 1e6) | st.just(math.nan), max_size=20))
def test_failures_count_as_the_worst(values: list[float]) -> None:
    """Nothing is NaN, and nothing that failed is better than what did not."""
    told = without_failures(values)

    finite = [value for value in values if not math.isnan(value)]
    assert all(map(math.isfinite, told))
    for value, given_value in zip(told, values, strict=True):
        assert value == (max(finite, default=0.0) if math.isnan(given_value) else value)


@pytest.mark.filterwarnings("ignore")
def test_a_model_is_skopts_own() -> None:
    """What a fitted search keeps of it needs nothing of ours."""
    optimizer = Optimizer(SPACE, random_state=0)

    model = Surrogate(optimizer, seed=0).suggest(known(optimizer, 10), 1, 1).model

    assert model.get_params()["optimizer"] == "fmin_l_bfgs_b"
    assert b"dask_hpsearch" not in pickle.dumps(model)
