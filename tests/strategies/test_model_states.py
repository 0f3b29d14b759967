"""Models between two training tasks: stored, named by their content, continued anywhere."""

from __future__ import annotations

import threading
import uuid
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sklearn.base import BaseEstimator
from sklearn.linear_model import SGDClassifier

from dask_hpsearch.data import DataStore
from dask_hpsearch.engine.engine import Engine
from dask_hpsearch.exceptions import (
    ObjectNotFoundError,
    StoreError,
    UnpicklableError,
    UntrustedObjectError,
)
from dask_hpsearch.joblib_backend.session import Session
from dask_hpsearch.slots.model_state import ModelState
from dask_hpsearch.stores import open_store
from dask_hpsearch.strategies.model_states import ModelStates, remove_all
from tests.estimators import flowers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from distributed import Client

    from dask_hpsearch.stores import Store

X, y = flowers()
LARGE = 100_000  # bytes; more than a task carries
PLACES = ("file", "gs", "memory", None)


class Sums(BaseEstimator):
    """Adds up what it sees; of any size."""

    def __init__(self, nbytes: int = 0) -> None:
        self.nbytes = nbytes

    def partial_fit(self, X: np.ndarray) -> None:
        if not hasattr(self, "total_"):
            self.total_ = np.zeros(1 + self.nbytes // 8)
        self.total_ += X.sum()


def trained(state: ModelState | None, nbytes: int) -> ModelState:
    """Train a model once more; runs in a slot."""
    model = Sums(nbytes) if state is None else state.load()
    model.partial_fit(X)
    return ModelState.of(model)


@pytest.fixture(params=PLACES, ids=str)
def run(
    request: pytest.FixtureRequest, tmp_path: Path, gcs_bucket: str
) -> Store | None:
    """The folder of a run."""
    return run_in(request.param, tmp_path, gcs_bucket)


def run_in(kind: str | None, tmp_path: Path, gcs_bucket: str) -> Store | None:
    """Return the folder of a new run; None for a search without one."""
    name = uuid.uuid4().hex
    urls = {
        "file": str(tmp_path / name),
        "gs": f"gs://{gcs_bucket}/{name}",
        "memory": f"memory://{name}",
    }
    return None if kind is None else open_store(urls[kind]).child("runs/0")


def data_store_of(run: Store | None) -> DataStore:
    """Return the data store of a run's search."""
    return DataStore() if run is None else DataStore.of(run)


@pytest.fixture
def states(run: Store | None) -> Iterator[ModelStates]:
    """The states of a search with that run."""
    with data_store_of(run) as data_store, ModelStates(data_store, run) as states:
        yield states


def names_in(run: Store | None) -> list[str]:
    """List the states in a run's folder."""
    return [] if run is None else [one.name for one in run.list("models/")]


@pytest.mark.parametrize("nbytes", [0, LARGE])
def test_a_model_is_continued_in_any_slot(
    nbytes: int, run: Store | None, client: Client
) -> None:
    """By reference, small or large; the driver never needs the model itself."""
    with (
        data_store_of(run) as data_store,
        ModelStates(data_store, run) as states,
        Engine(client, data_store) as engine,
    ):
        session = Session(engine)
        shared = session.shared_call(trained)
        digests: list[str] = []
        for _ in range(3):
            given = states.in_task(digests[-1]) if digests else None
            state = result_of_call(session, shared, (given, nbytes))
            states.put(state)
            digests.append(state.digest)

        totals = [states.load(digest).total_ for digest in digests]

    assert np.allclose([one[-1] for one in totals], X.sum() * np.arange(1, 4))
    assert {len(one) for one in totals} == {1 + nbytes // 8}


def result_of_call(session: Session, shared: Any, arguments: tuple[Any, ...]) -> Any:
    """Return what a call in a slot returns, or raise its error."""
    found: list[Any] = []
    done = threading.Event()

    def deliver(result: Any) -> None:
        found.append(result)
        done.set()

    session.submit_call(shared, arguments, session.new_group(), deliver, what="a call")
    assert done.wait(60)
    if isinstance(found[0], BaseException):
        raise found[0]
    return found[0]


def test_a_model_is_the_same_after_it_was_stored(states: ModelStates) -> None:
    """And training goes on from it as if it had never been: to the last digit."""
    own = SGDClassifier(random_state=0).partial_fit(X, y, classes=[0, 1, 2])
    state = ModelState.of(own)
    states.put(state)

    restored = states.load(state.digest)

    for model in (own, restored):
        model.partial_fit(X, y)
    np.testing.assert_array_equal(own.coef_, restored.coef_)
    assert restored.t_ == own.t_
    assert states.load(state.digest).t_ < own.t_


@pytest.mark.parametrize("nbytes", [0, LARGE])
def test_a_later_driver_finds_the_states_of_a_run(
    nbytes: int, run: Store | None, client: Client
) -> None:
    """In the run's folder, by the names in its journal; without a run there are none."""
    first, second = trained(None, nbytes), ModelState.of(Sums(nbytes))
    with data_store_of(run) as data_store, ModelStates(data_store, run) as before:
        before.put(first)

    with (
        data_store_of(run) as data_store,
        ModelStates(data_store, run) as states,
        Engine(client, data_store) as engine,
    ):
        missing = states.recover([first.digest, second.digest])
        if run is None:
            assert missing == {first.digest, second.digest}
            return
        assert missing == {second.digest}
        session = Session(engine)
        shared = session.shared_call(trained)
        next_state = result_of_call(
            session, shared, (states.in_task(first.digest), nbytes)
        )

    assert np.isclose(next_state.load().total_[0], 2 * X.sum())


def test_a_state_is_removed_once_it_is_needed_no_more(
    states: ModelStates, run: Store | None
) -> None:
    """Two models may have one state: it stays until neither needs it."""
    one, other = trained(None, LARGE), trained(None, 0)
    for state in (one, one, other):
        states.put(state)

    states.remove(other.digest)
    states.remove(one.digest)

    assert names_in(run) == ([] if run is None else [f"models/{one.digest}"])
    assert states.load(one.digest).nbytes == LARGE
    states.remove(one.digest)
    assert names_in(run) == []
    with pytest.raises((ObjectNotFoundError, FileNotFoundError)):
        states.load(one.digest)


def test_states_without_a_run_end_with_the_search(tmp_path: Path) -> None:
    """Nothing stays in the folder of data."""
    with DataStore(tmp_path) as data_store:
        with ModelStates(data_store) as states:
            states.put(trained(None, LARGE))
            assert list((tmp_path / "data").iterdir())

        assert not list((tmp_path / "data").iterdir())


def test_all_states_of_a_run_are_removed_at_its_end(
    states: ModelStates, run: Store | None
) -> None:
    """Also those that a killed driver left."""
    for nbytes in (0, 8, LARGE):
        states.put(trained(None, nbytes))

    if run is not None:
        remove_all(run)

    assert names_in(run) == []


@pytest.mark.parametrize("kind", ["file", "gs"])
@pytest.mark.parametrize("nbytes", [0, LARGE + 8])  # which no node has in its cache
def test_an_altered_state_is_refused_before_it_is_unpickled(
    kind: str, nbytes: int, tmp_path: Path, gcs_bucket: str, client: Client
) -> None:
    """Write access to the folder does not let code run in slots or in the driver."""
    run = run_in(kind, tmp_path, gcs_bucket)
    assert run is not None
    evil = tmp_path / "evil"
    state, forged = trained(None, nbytes), ModelState.of(Evil(str(evil), nbytes))
    run.create(f"models/{state.digest}", forged.content)  # type: ignore[arg-type]
    with (
        data_store_of(run) as data_store,
        ModelStates(data_store, run) as states,
        Engine(client, data_store) as engine,
    ):
        assert not states.recover([state.digest])
        session = Session(engine)
        shared = session.shared_call(trained)

        with pytest.raises(UntrustedObjectError, match="alter"):
            states.load(state.digest)
        with pytest.raises(UntrustedObjectError, match="alter"):
            result_of_call(session, shared, (states.in_task(state.digest), nbytes))

    assert not evil.exists()


class Evil:
    """Makes a file as it is unpickled."""

    def __init__(self, path: str, nbytes: int) -> None:
        self.path, self.filler = path, bytes(nbytes)

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.path, "w"), self.filler or None


def test_a_truncated_state_is_refused(tmp_path: Path) -> None:
    """An empty one too."""
    state = trained(None, 0)
    for length in (0, 7, 40, 200):
        path = tmp_path / f"{length}"
        path.write_bytes(bytes(state.content)[:length])  # type: ignore[arg-type]
        for content in (path, path.read_bytes()):
            with pytest.raises(UntrustedObjectError):
                ModelState(state.digest, content).load()


def test_states_are_stored_in_other_threads(
    states: ModelStates, run: Store | None
) -> None:
    """Their name may be noted only then."""
    state = trained(None, LARGE)
    seen: list[Any] = []
    done = threading.Event()

    def stored(error: Exception | None) -> None:
        seen.append((error, names_in(run)))
        done.set()

    states.put_soon(state, stored)

    assert done.wait(60)
    assert seen == [(None, [] if run is None else [f"models/{state.digest}"])]


def test_a_store_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    """To the caller that has put the state."""
    (tmp_path / "models").write_text("a file")
    run = open_store(tmp_path)
    seen: list[Any] = []
    with DataStore() as data_store, ModelStates(data_store, run) as states:
        with pytest.raises(StoreError):
            states.put(trained(None, 0))
        states.put_soon(trained(None, 0), seen.append)

    assert isinstance(seen[0], StoreError)


def test_a_function_that_cannot_be_pickled_is_named(client: Client) -> None:
    """And so are arguments."""
    with DataStore() as data_store, Engine(client, data_store) as engine:
        session = Session(engine)
        with pytest.raises(UnpicklableError):
            session.shared_call(threading.Lock().acquire)
        shared = session.shared_call(trained)
        with pytest.raises(UnpicklableError, match="model 3"):
            session.submit_call(
                shared,
                (threading.Lock(),),
                session.new_group(),
                lambda _: None,
                what="model 3",
            )
