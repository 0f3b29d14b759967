"""scikit-learn 1.9's callbacks on a search, and on what it fits."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import TYPE_CHECKING, Any

import joblib
import pytest
from sklearn import model_selection
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from dask_hpsearch import DaskSearchCV
from dask_hpsearch.data import DataStore
from dask_hpsearch.exceptions import UnsupportedSearchError
from dask_hpsearch.execution.fit import fit_trials
from dask_hpsearch.execution.settings import Settings
from dask_hpsearch.progress import SearchProgress
from dask_hpsearch.recorder.evaluation_hook import EvaluationHook
from dask_hpsearch.recorder.recorder import Recorder
from dask_hpsearch.sklearn_adapter import callbacks
from tests.callbacks import Notes, PropagatedNotes
from tests.estimators import flowers

if TYPE_CHECKING:
    from collections.abc import Callable

    from distributed import Client

callback = pytest.importorskip("sklearn.callback", reason="scikit-learn before 1.9")
X, y = flowers()
EVALUATION = "candidate-split-evaluation"  # scikit-learn's name of a fit's task
# What a step of a pipeline says of callbacks that it does not support.
pytestmark = pytest.mark.filterwarnings("ignore:.*does not support callbacks")


def pipeline(C: float = 1.0) -> Pipeline:
    """Make a pipeline of which each step may have callbacks."""
    model = LogisticRegression(C=C, max_iter=40)
    return Pipeline([("scale", StandardScaler()), ("model", model)])


def grid(space: Any = None, **options: Any) -> Any:
    """Make a small search."""
    space = {"model__C": [0.1, 1.0]} if space is None else space
    return model_selection.GridSearchCV(pipeline(), space, cv=2, **options)


def on_the_search(notes: Notes) -> Any:
    """Set callbacks on a grid search."""
    return grid().set_callbacks(notes)


def on_a_random_search(notes: Notes) -> Any:
    """Set callbacks on a randomized search."""
    search = model_selection.RandomizedSearchCV(
        pipeline(), {"model__C": [0.1, 1.0, 9.0]}, n_iter=2, cv=2, random_state=0
    )
    return search.set_callbacks(notes)


def on_a_halving_search(notes: Notes) -> Any:
    """Set callbacks on a halving search."""
    search = model_selection.HalvingGridSearchCV(
        pipeline(), {"model__C": [0.1, 1.0, 9.0]}, cv=2, random_state=0
    )
    return search.set_callbacks(notes)


def on_the_estimator(notes: Notes) -> Any:
    """Set callbacks on what a search fits."""
    search = grid()
    search.estimator.set_callbacks(notes)
    return search


def on_a_step(notes: Notes) -> Any:
    """Set callbacks on a step of what a search fits."""
    search = grid()
    search.estimator.named_steps["model"].set_callbacks(notes)
    return search


def on_a_candidate(notes: Notes) -> Any:
    """Set callbacks on an estimator among the candidates."""
    candidate = LogisticRegression(max_iter=30).set_callbacks(notes)
    return grid({"model": [LogisticRegression(max_iter=40), candidate]})


MAKERS: list[Callable[[Notes], Any]] = [
    on_the_search,
    on_a_random_search,
    on_a_halving_search,
    on_the_estimator,
    on_a_step,
    on_a_candidate,
]


@pytest.mark.parametrize("make", MAKERS)
def test_hooks_are_called_as_in_a_plain_fit(
    make: Any, client: Client, tmp_path: Path
) -> None:
    """With the same places in the tree of tasks, and the data of their fits."""
    plain, ours = (Notes(str(tmp_path / name)) for name in ("plain", "ours"))
    make(plain).fit(X, y)

    DaskSearchCV(make(ours), client=client).fit(X, y)

    assert ours.read() == plain.read()


@pytest.mark.parametrize("make", [on_the_search, on_a_halving_search])
def test_propagated_callbacks_follow_into_the_fits(
    make: Any, client: Client, tmp_path: Path
) -> None:
    """A step fitted for another candidate would have nothing to tell them."""
    plain, ours = (PropagatedNotes(str(tmp_path / name)) for name in ("plain", "ours"))
    make(plain).fit(X, y)

    DaskSearchCV(make(ours), client=client).fit(X, y)

    assert ours.read() == plain.read()


def test_the_joblib_backend_calls_hooks(client: Client, tmp_path: Path) -> None:
    """A search within ``parallel_config`` is served in the same way."""
    plain, ours = (PropagatedNotes(str(tmp_path / name)) for name in ("plain", "ours"))
    grid().set_callbacks(plain).fit(X, y)

    with joblib.parallel_config("dask_hpsearch", client=client):
        grid(n_jobs=2).set_callbacks(ours).fit(X, y)

    assert ours.read() == plain.read()


# Dask sets the caller's filters in a worker's threads, where they can stay.
@pytest.mark.filterwarnings("default")
def test_the_joblib_backend_of_dask_calls_hooks(client: Client, tmp_path: Path) -> None:
    """On this machine, where it need not be relayed."""
    plain, ours = (Notes(str(tmp_path / name)) for name in ("plain", "ours"))
    on_the_search(plain).fit(X, y)

    DaskSearchCV(on_the_search(ours), client=client, backend="joblib").fit(X, y)

    assert ours.read() == plain.read()


def test_dask_ml_refuses_callbacks_by_name(client: Client, tmp_path: Path) -> None:
    """Its graph has no place for them."""
    search = on_the_search(Notes(str(tmp_path / "notes")))

    with pytest.raises(UnsupportedSearchError, match="without callbacks"):
        DaskSearchCV(search, client=client, backend="dask-ml").fit(X, y)


class Socket:
    """Where callbacks in other processes connect to; it can be put out of reach."""

    def __init__(self, address: str) -> None:
        self._path = Path(address)
        self._away = Path(f"{address}-elsewhere")

    def put_away(self) -> None:
        self._path.rename(self._away)

    def put_back(self) -> None:
        self._away.rename(self._path)


class Bars(callback.ProgressBar):  # type: ignore[misc]
    """Progress bars whose socket no other process can reach, if so asked."""

    def __init__(self, *, reachable: bool) -> None:
        super().__init__(max_propagation_depth=None)
        self.reachable = reachable

    def setup(self, estimator: Any, context: Any) -> None:
        super().setup(estimator, context)
        if not self.reachable:
            self._socket(context).put_away()

    def teardown(self, estimator: Any, context: Any) -> None:
        if not self.reachable:
            self._socket(context).put_back()
        super().teardown(estimator, context)

    def _socket(self, context: Any) -> Socket:
        return Socket(self._listener_handles[context.root_uuid].address)


def scores(monitor: Any) -> list[tuple[Any, ...]]:
    """Return what a monitor has logged, in a plain fit's order."""
    rows = monitor.get_logs().data
    return [(row["task_id_path"], row.get("accuracy")) for row in rows]


@pytest.mark.parametrize("reachable", [True, False], ids=["reachable", "elsewhere"])
@pytest.mark.parametrize("backend", ["trials", "dask_hpsearch"])
def test_what_callbacks_say_arrives(
    reachable: bool,  # noqa: FBT001
    backend: str,
    client: Client,
) -> None:
    """From workers of this machine at once, from others with their fits' results."""
    plain, ours = (callback.ScoringMonitor(scoring="accuracy") for _ in range(2))
    on_a_step(plain).fit(X, y)
    socket = Socket(ours._listener_handle.address)
    search = on_a_step(ours)
    if not reachable:
        socket.put_away()

    if backend == "trials":
        DaskSearchCV(search, client=client).fit(X, y)
    else:
        with joblib.parallel_config("dask_hpsearch", client=client):
            search.set_params(n_jobs=2).fit(X, y)

    if not reachable:
        socket.put_back()
    assert len(scores(ours)) > 4
    assert scores(ours) == scores(plain)


@pytest.mark.parametrize("reachable", [True, False], ids=["reachable", "elsewhere"])
def test_progress_bars_end_complete(
    reachable: bool,  # noqa: FBT001
    client: Client,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One for each task that has some of its own, all of them at their ends."""
    monkeypatch.setenv("COLUMNS", "200")
    search = grid().set_callbacks(Bars(reachable=reachable))

    DaskSearchCV(search, client=client).fit(X, y)

    bars = [line for line in capsys.readouterr().out.splitlines() if " - " in line]
    assert len([line for line in bars if "candidate-split-evaluation" in line]) == 4
    assert all("100%" in line for line in bars)


def test_tasks_do_not_grow_with_the_tree_of_all_tasks(
    client: Client, tmp_path: Path
) -> None:
    """A fit takes along the way from the root to its own task."""

    def bytes_per_fit(n_candidates: int) -> float:
        engines: list[Any] = []
        space = {"model__C": [1.0 + number for number in range(n_candidates)]}
        search = grid(space, refit=False).set_callbacks(Notes(str(tmp_path / "notes")))
        with DataStore() as home:
            settings = Settings(client=client)
            fit_trials(
                search, X, y, {}, settings, data_store=home, on_engine=engines.append
            )
        return float(engines[0].task_bytes / engines[0].tasks_sent)

    assert bytes_per_fit(60) < 1.5 * bytes_per_fit(3)


@pytest.mark.parametrize("with_callbacks", [True, False])
def test_fits_have_contexts_only_if_there_are_callbacks(
    tmp_path: Path, *, with_callbacks: bool
) -> None:
    """Of a million fits without any, they would take half a GiB."""
    counts = []

    def n_contexts() -> int:
        kind, tasks = callback.CallbackContext, gc.get_objects()
        found = [one for one in tasks if isinstance(one, kind)]
        return [one.task_name for one in found].count(EVALUATION)

    def score(estimator: Any, X: Any, y: Any) -> float:
        counts.append(n_contexts())
        return float(estimator.score(X, y))

    search = grid({"model__C": [0.1] * 20}, scoring=score, refit=False)
    if with_callbacks:
        search.set_callbacks(Notes(str(tmp_path / "notes")))
    hook = EvaluationHook(Recorder(SearchProgress(), refit=False))

    gc.collect()
    before = n_contexts()  # other tests' contexts may be kept by their errors
    with hook.attached(search):
        search.fit(X, y)

    assert (max(counts) - before >= 40) == with_callbacks


def test_callbacks_are_found_wherever_they_are(tmp_path: Path) -> None:
    """On the search, on its estimator, and on an estimator among its parameters."""
    notes = Notes(str(tmp_path / "notes"))
    plain: dict[str, Any] = {"model": LogisticRegression(), "model__C": 1.0}
    noted = {"model": LogisticRegression().set_callbacks(notes)}
    inner = pipeline()
    inner.named_steps["model"].set_callbacks(notes)

    assert not callbacks.are_called(grid(), [plain])
    assert callbacks.are_called(grid(), [plain, noted])
    assert callbacks.are_called(on_the_search(notes), [plain])
    assert callbacks.are_called(model_selection.GridSearchCV(inner, {}), [])
