"""What a fit does that another one might do differently is seen."""

from __future__ import annotations

import os
import random
import secrets
import uuid
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from joblib import Parallel, delayed
from sklearn.linear_model import LogisticRegression
from sklearn.utils import check_random_state

from dask_hpsearch.slots.fit_watch import FitWatch, WarningWatch

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

OF_A_MODULE = np.random.default_rng(0)


def seen(act: Callable[[], object], *given: Any, known_code: bool = False) -> bool:
    """Watch an act; return whether it was found to be repeatable."""
    with FitWatch(given, known_code=known_code) as watch:
        act()
    return watch.repeatable


def _seeds_and_draws() -> None:
    np.random.seed(0)  # noqa: NPY002
    np.random.random()  # noqa: NPY002


CHANCE: dict[str, Callable[[], object]] = {
    "numpy": np.random.random,
    "numpy-normal": np.random.randn,
    "numpy-seed": lambda: np.random.seed(1),  # noqa: NPY002
    "numpy-seed-and-draw": _seeds_and_draws,
    "python": random.random,
    "python-shuffle": lambda: random.shuffle([1, 2, 3]),
    "python-own": random.Random,
    "generator": np.random.default_rng,
    "random-state": np.random.RandomState,
    "seed-sequence": np.random.SeedSequence,
    "of-a-module": OF_A_MODULE.random,
    "urandom": lambda: os.urandom(3),
    "secrets": lambda: secrets.token_bytes(3),
    "uuid": uuid.uuid4,
    "scikit-learn": lambda: check_random_state(None).rand(),
}
NO_CHANCE: dict[str, Callable[[], object]] = {
    "nothing": lambda: None,
    "generator": lambda: np.random.default_rng(0).random(),
    "python-own": lambda: random.Random(0).random(),
    "scikit-learn": lambda: check_random_state(0).rand(),
    "scikit-learn-no-draw": lambda: check_random_state(None),
    "joblib-names": lambda: Parallel(n_jobs=1)(delayed(abs)(n) for n in range(3)),
    "contexts": lambda: LogisticRegression().fit([[0.0], [1.0]], [0, 1]),
}


def _repeatable(name: str, *, known_code: bool = False) -> bool:
    return seen(NO_CHANCE[name], known_code=known_code)


@pytest.mark.parametrize("act", CHANCE.values(), ids=CHANCE)
def test_chance_is_seen_each_time(act: Callable[[], object]) -> None:
    """Draws of any generator, fresh entropy, and seeds that are set for others."""
    assert [seen(act) for _ in range(3)] == [False, False, False]


@pytest.mark.parametrize("known_code", [True, False])
@pytest.mark.parametrize("name", NO_CHANCE)
def test_an_act_that_is_seeded_or_draws_nothing_is_repeatable(
    name: str, one_thread_process: Executor, *, known_code: bool
) -> None:
    """Names that are drawn for calls and contexts do not count."""
    found = one_thread_process.submit(_repeatable, name, known_code=known_code)

    assert found.result()


@pytest.mark.parametrize("known_code", [True, False])
def test_an_unseeded_draw_of_known_code_is_seen(*, known_code: bool) -> None:
    """The global generators are watched in any case."""
    assert not seen(lambda: check_random_state(None).rand(), known_code=known_code)


def _seen_of_data() -> list[bool]:
    X, y = np.zeros((3, 2)), np.zeros(3)
    acts = (X.sum, lambda: X.fill(1), lambda: y.fill(1))
    return [seen(act, X, y) for act in acts]


def test_data_that_was_altered_is_seen(one_thread_process: Executor) -> None:
    """X and y must be as they were."""
    found = one_thread_process.submit(_seen_of_data)

    assert found.result() == [True, False, False]


def _seen_of_a_warning() -> tuple[bool, bool, bool, list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with FitWatch((), known_code=True) as watch:
            warnings.warn("mind", stacklevel=1)
        with WarningWatch() as silent:
            pass

    texts = [str(one.message) for one in caught]
    return watch.warned, watch.repeatable, silent.warned, texts


def test_a_warning_is_noted_and_shown(one_thread_process: Executor) -> None:
    """A fit that warns is repeatable, but every fit must warn."""
    found = one_thread_process.submit(_seen_of_a_warning)

    assert found.result() == (True, True, False, ["mind"])


def test_everything_is_put_back_after_an_error() -> None:
    """A fit that raises leaves the functions that were watched."""
    before = os.urandom, random.Random.seed, warnings.showwarning

    with pytest.raises(ZeroDivisionError):
        seen(lambda: 1 / 0)

    assert (os.urandom, random.Random.seed, warnings.showwarning) == before
