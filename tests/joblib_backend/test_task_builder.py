"""Tasks of the engine, made of what scikit-learn and joblib hand over."""

from __future__ import annotations

import itertools
import pickle
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from joblib import delayed
from joblib.parallel import BatchedCalls
from sklearn.linear_model import LogisticRegression

from dask_hpsearch.data import DataStore
from dask_hpsearch.exceptions import UnpicklableError
from dask_hpsearch.joblib_backend.task_builder import TaskBuilder
from dask_hpsearch.localfs import bundles
from dask_hpsearch.sklearn_adapter import FitCall
from tests.estimators import flowers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dask_hpsearch.messages import FitSpec

X, y = flowers()
SHARED = {"error_score": np.nan, "scorer": None}
ROWS = np.arange(10), np.arange(10, 20)


class Modules:
    """Stands for what compares the workers' modules with those here."""

    def compare(self, payload: bytes) -> None:
        """Do nothing: there are no workers."""


@dataclass
class Engine:
    """As much of an engine as making tasks takes."""

    data_store: DataStore
    client: Any = None
    modules: Modules = field(default_factory=Modules)
    numbers: Any = field(default_factory=itertools.count)

    def next_number(self) -> int:
        """Return a number that no other task has."""
        return int(next(self.numbers))


@pytest.fixture
def builder() -> Iterator[TaskBuilder]:
    """Make tasks without a cluster."""
    with DataStore() as data_store:
        yield TaskBuilder(Engine(data_store))  # type: ignore[arg-type]


def fit_of(candidate: int, split: int, **changed: Any) -> FitCall:
    """Return a fit as scikit-learn hands it over: with a clone of its own."""
    values: dict[str, Any] = {
        "function": fit_of,
        "estimator": LogisticRegression(),
        "X": X,
        "y": y,
        "train": ROWS[0],
        "test": ROWS[1],
        "parameters": {"C": candidate + 1.0},
        "split": split,
        "n_splits": 2,
        "candidate": candidate,
        "n_candidates": 3,
        "shared": SHARED,
    }
    return FitCall(**values | changed)


def test_references_are_made_once_and_handed_on_as_they_are(
    builder: TaskBuilder,
) -> None:
    """From the data store to the slot it is the same reference to X."""
    first, first_data = builder.fit_task(fit_of(0, 0))
    second, second_data = builder.fit_task(fit_of(1, 0))

    spec: FitSpec = bundles.load(str(first.spec.path))

    assert second.spec is first.spec
    assert second.split_data is first.split_data
    assert all(one is other for one, other in zip(first_data, second_data, strict=True))
    assert first_data == (first.spec, first.split_data, spec.X, spec.y)
    assert np.array_equal(bundles.load(str(spec.X.path)), X)


def test_tasks_are_numbered_and_carry_their_ordinals(builder: TaskBuilder) -> None:
    """Results are known by them."""
    tasks = [builder.fit_task(fit_of(candidate, 1))[0] for candidate in range(3)]

    assert [task.number for task in tasks] == [0, 1, 2]
    assert [(task.candidate, task.split) for task in tasks] == [(0, 1), (1, 1), (2, 1)]


def test_the_parameters_of_a_candidate_are_pickled_once(builder: TaskBuilder) -> None:
    """All its splits carry the same bytes."""
    parameters = {"C": 1.0}

    first, second = (
        builder.fit_task(fit_of(0, split, parameters=parameters))[0] for split in (0, 1)
    )

    assert second.parameters is first.parameters


def test_fits_with_other_data_have_a_spec_of_their_own(builder: TaskBuilder) -> None:
    """Two searches may be served by turns."""
    first, _ = builder.fit_task(fit_of(0, 0))
    other, _ = builder.fit_task(fit_of(0, 0, X=X + 1))
    again, _ = builder.fit_task(fit_of(1, 0))

    assert other.spec != first.spec
    assert again.spec is first.spec


def test_after_its_call_nothing_of_it_is_found(builder: TaskBuilder) -> None:
    """The next call may have an estimator that has changed."""
    first, _ = builder.fit_task(fit_of(0, 0))
    builder.end_call()

    estimator = LogisticRegression(max_iter=7)
    second, _ = builder.fit_task(fit_of(0, 0, estimator=estimator))

    assert second.spec != first.spec


def test_an_error_names_the_part_that_cannot_be_pickled(builder: TaskBuilder) -> None:
    """The keyword, or the candidate."""
    generator = (number for number in ())

    with pytest.raises(UnpicklableError, match="fit_params"):
        builder.fit_task(fit_of(0, 0, shared={"fit_params": generator}))
    with pytest.raises(UnpicklableError, match="candidate 2"):
        builder.fit_task(fit_of(2, 0, parameters={"C": generator}))


def test_calls_have_their_functions_in_common(builder: TaskBuilder) -> None:
    """Each call's arguments follow them."""
    large = np.zeros(10_000)
    batch = BatchedCalls([delayed(np.sum)(large), delayed(np.sum)([1])], None)

    task, data = builder.call_task(batch)

    assert pickle.loads(task.functions) == [np.sum]
    assert len(task.calls) == 2
    assert [bundles.load(str(ref.path)).shape for ref in data] == [(10_000,)]
