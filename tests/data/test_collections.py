"""Dask collections as data: computed once, and then as if they had been in memory."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask
import dask.array as da
import dask.bag as db
import dask.dataframe as dd
import joblib
import numpy as np
import pandas as pd
import pytest
from distributed import Client, LocalCluster
from scipy import sparse
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    PredefinedSplit,
    ShuffleSplit,
    StratifiedKFold,
    cross_validate,
)
from sklearn.multioutput import MultiOutputClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from dask_hpsearch import DaskSearchCV, local_cluster, upload
from dask_hpsearch.data.collections import computed
from dask_hpsearch.exceptions import (
    DataTooLargeError,
    DataUnavailableError,
    NoWorkersError,
)
from tests.estimators import flowers
from tests.oracle.kinds import DEPTHS, KINDS, build, tree
from tests.oracle.structure import difference
from tests.processes import WAIT_S

if TYPE_CHECKING:
    from collections.abc import Callable

X, y = flowers()
FRAME = pd.DataFrame(X, columns=list("abcd"), index=np.arange(len(X))[::-1] + 1000)
FRAME["kind"] = pd.Categorical(np.where(X[:, 1] > 3, "wide", "narrow"))
TARGET = pd.Series(np.array(["x", "y", "z"])[y], index=FRAME.index, name="species")


def lazy_array(values: np.ndarray, rows: int = 30) -> da.Array:
    """Make an array of blocks."""
    return da.from_array(values, chunks=(rows, *values.shape[1:]))


def lazy_frame(frame: Any) -> Any:
    """Make a dataframe of partitions, whose order is the frame's."""
    return dd.from_pandas(frame, npartitions=3, sort=False)


def of_unknown_length() -> da.Array:
    """Return an array whose chunks' sizes are known only once they are computed."""
    array = lazy_array(X)
    return array[array[:, 0] > 0]


ARRAYS: dict[str, Callable[[], Any]] = {
    "array": lambda: lazy_array(X),
    "columns apart": lambda: lazy_array(X).rechunk((40, 2)),
    "one chunk": lambda: lazy_array(X, 1000),
    "single precision": lambda: lazy_array(X.astype(np.float32)),
    "masked": lambda: da.ma.masked_greater(lazy_array(X), 7.5),
    "sparse": lambda: lazy_array(X).map_blocks(sparse.csr_matrix),
    "unknown length": of_unknown_length,
    "frame's values": lambda: lazy_frame(FRAME[list("abcd")]).to_dask_array(),
    "frame": lambda: lazy_frame(FRAME[list("abcd")]),
    "delayed": lambda: dask.delayed(X),
    "delayed frame": lambda: dask.delayed(FRAME[list("abcd")]),
    "bag": lambda: db.from_sequence(X.tolist(), npartitions=3),
}
TARGETS: dict[str, Callable[[], Any]] = {
    "in memory": lambda: y,
    "array": lambda: lazy_array(y),
    "series": lambda: lazy_frame(pd.Series(y, index=FRAME.index)),
    "labels": lambda: lazy_frame(TARGET),
    "bag": lambda: db.from_sequence(y.tolist(), npartitions=3),
    "delayed": lambda: dask.delayed(y),
}


def plain(value: Any) -> Any:
    """Compute a collection in this process."""
    if not dask.is_dask_collection(value):
        return value
    return value.compute(scheduler="synchronous")


def check(
    client: Client | None, make: Callable[[], Any], X: Any, y: Any = None, **params: Any
) -> DaskSearchCV:
    """Assert that a fit on collections equals a plain one on what they compute to."""
    own = make().fit(
        plain(X), plain(y), **{name: plain(one) for name, one in params.items()}
    )
    found = DaskSearchCV(make(), client=client).fit(X, y, **params)
    told = difference(own, found.search_)
    assert told is None, told
    return found


def grid(**options: Any) -> GridSearchCV:
    """Make a search over trees."""
    return GridSearchCV(tree(), DEPTHS, **{"cv": 3, **options})


@pytest.mark.parametrize("persisted", [False, True], ids=["lazy", "persisted"])
@pytest.mark.parametrize("kind", ARRAYS)
def test_every_kind_of_data(
    kind: str,
    persisted: bool,  # noqa: FBT001 (a parameter of the test)
    client: Client,
) -> None:
    """Whatever it is, and wherever its parts are."""
    data = ARRAYS[kind]()
    given = client.persist(data) if persisted else data

    own = grid().fit(plain(data), y)
    found = DaskSearchCV(grid(), client=client).fit(given, y)

    assert difference(own, found.search_) is None


@pytest.mark.parametrize("persisted", [False, True], ids=["lazy", "persisted"])
@pytest.mark.parametrize("kind", TARGETS)
def test_every_kind_of_target(
    kind: str,
    persisted: bool,  # noqa: FBT001 (a parameter of the test)
    client: Client,
) -> None:
    """With an X of another kind."""
    target = TARGETS[kind]()
    given = client.persist(target) if persisted and kind != "in memory" else target

    own = grid().fit(X, plain(target))
    found = DaskSearchCV(grid(), client=client).fit(lazy_array(X), given)

    assert difference(own, found.search_) is None


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_search(kind: str, client: Client) -> None:
    """Halving and Bayes too."""
    make = partial(build, kind, tree(), DEPTHS)
    options = {"bayes_async": False} if kind == "bayes" else {}

    own = make().fit(X, y)
    found = DaskSearchCV(make(), client=client, **options).fit(
        client.persist(lazy_array(X)), lazy_array(y)
    )

    assert difference(own, found.search_) is None


@pytest.mark.parametrize(
    "cv",
    [
        2,
        KFold(3, shuffle=True, random_state=0),
        StratifiedKFold(3),
        ShuffleSplit(2, random_state=0),
        PredefinedSplit(np.arange(len(X)) % 3),
        [(np.arange(60), np.arange(60, 90))],
    ],
    ids=["number", "k-fold", "stratified", "shuffle", "predefined", "list"],
)
def test_every_kind_of_splits(cv: Any, client: Client) -> None:
    """Splitters look at what was computed."""
    check(client, partial(grid, cv=cv), lazy_frame(FRAME[list("abcd")]), lazy_array(y))


def test_a_frame_stays_one(client: Client, tmp_path: Path) -> None:
    """Read from parquet: columns by name, dtypes, index, and a column as target."""
    table = FRAME.assign(species=TARGET)
    for number, part in enumerate(np.array_split(np.arange(len(table)), 3)):
        table.iloc[part].to_parquet(tmp_path / f"part-{number}.parquet")
    read = dd.read_parquet(str(tmp_path / "*.parquet"))
    columns = make_column_transformer(
        (StandardScaler(), ["d", "b"]), (OneHotEncoder(), ["kind"])
    )
    pipeline = make_pipeline(columns, LogisticRegression())
    make = partial(
        GridSearchCV, pipeline, {"logisticregression__C": [0.1, 1.0, 10.0]}, cv=3
    )

    found = check(client, make, read.drop(columns="species"), read["species"])

    assert list(found.feature_names_in_) == [*"abcd", "kind"]
    pd.testing.assert_frame_equal(computed({"X": read}, client)["X"], plain(read))


@pytest.mark.parametrize(
    "both",
    [
        lambda: lazy_array(np.column_stack([y, X[:, 2] > 4])),
        lambda: lazy_frame(pd.DataFrame({"kind": y, "long": X[:, 2] > 4})),
    ],
    ids=["array", "frame"],
)
def test_several_outputs(both: Callable[[], Any], client: Client) -> None:
    """A y with columns may be a collection too."""
    model = MultiOutputClassifier(GaussianNB())
    make = partial(GridSearchCV, model, {"estimator__var_smoothing": [1e-9, 0.1]}, cv=3)

    check(client, make, lazy_array(X), both())


@pytest.mark.parametrize("form", [lazy_array, lambda one: lazy_frame(pd.Series(one))])
def test_parameters_of_fit(form: Callable[[Any], Any], client: Client) -> None:
    """Weights and groups are collections like any other."""
    weights, groups = np.linspace(0.1, 2, len(y)), np.arange(len(y)) % 5

    check(client, grid, lazy_array(X), lazy_array(y), sample_weight=form(weights))
    check(
        client, partial(grid, cv=GroupKFold(3)), lazy_array(X), y, groups=form(groups)
    )


class Validated(DecisionTreeClassifier):  # type: ignore[misc]
    """A tree that looks at data which it is given beside its own."""

    def fit(self, X: Any, y: Any, eval_set: Any = ()) -> Validated:
        super().fit(X, y)
        self.seen_ = [(type(one).__name__, type(two).__name__) for one, two in eval_set]
        self.sums_ = [float(np.sum(one)) for one, _ in eval_set]
        return self


def test_collections_within_parameters_of_fit(client: Client) -> None:
    """Such as the pairs of ``eval_set``."""
    search = GridSearchCV(Validated(random_state=0), DEPTHS, cv=2)
    given = [(client.persist(lazy_array(X)), lazy_frame(TARGET))]

    found = DaskSearchCV(search, client=client).fit(X, y, eval_set=given)

    assert found.best_estimator_.seen_ == [("ndarray", "Series")]
    assert found.best_estimator_.sums_ == [pytest.approx(X.sum())]


@pytest.mark.parametrize("backend", ["trials", "joblib", "dask-ml"])
def test_every_backend(backend: Any, client: Client) -> None:
    """Dask's own ways get the same data."""
    search = DaskSearchCV(grid(), client=client, backend=backend)

    found = search.fit(client.persist(lazy_array(X)), lazy_array(y))

    assert found.best_params_ == grid().fit(X, y).best_params_


# --- where, and how often -------------------------------------------------------------


def noted(block: np.ndarray, log: str) -> np.ndarray:
    """Note which process computes a block."""
    with Path(log).open("a") as file:
        file.write(f"{os.getpid()}\n")
    return block


def noting(log: Path) -> da.Array:
    """Make an array whose three blocks note where they are computed."""
    return lazy_array(X).map_blocks(noted, log=str(log), dtype=X.dtype, meta=X[:0])


def test_a_collection_is_computed_once_by_the_workers(
    client: Client, tmp_path: Path
) -> None:
    """Not in each fit, by no slot, not here; X and y share what they have in common."""
    log = tmp_path / "log"
    source = noting(log)
    target = (source[:, 2] > 4).astype(int)

    DaskSearchCV(grid(), client=client).fit(source, target)

    workers = set(map(str, client.run(os.getpid).values()))
    told = log.read_text().split()
    assert len(told) == source.numblocks[0]
    assert set(told) <= workers


def test_without_a_client_it_is_computed_here(tmp_path: Path) -> None:
    """The search's own workers come later."""
    log = tmp_path / "log"

    found = DaskSearchCV(grid()).fit(noting(log), y)

    assert difference(grid().fit(X, y), found.search_) is None
    assert log.read_text().split() == [str(os.getpid())] * 3


@pytest.mark.parametrize("same", [True, False], ids=["same cluster", "another"])
def test_what_another_client_persisted(
    same: bool,  # noqa: FBT001 (a parameter of the test)
    cluster: LocalCluster,
    client: Client,
) -> None:
    """It is fetched by the client that has it, also for a search without one."""
    with (
        local_cluster(1, 1, dashboard_address=":0") as elsewhere,
        Client(cluster if same else elsewhere, set_as_default=False) as other,
    ):
        data = other.persist(lazy_array(X))

        found = DaskSearchCV(grid(), client=client).fit(data, lazy_array(y))
        values = computed({"X": data, "y": lazy_array(y)}, None)

    assert difference(grid().fit(X, y), found.search_) is None
    np.testing.assert_array_equal(values["X"], X)
    np.testing.assert_array_equal(values["y"], y)


def test_what_is_gone_is_told(client: Client) -> None:
    """Parts of a cluster that has ended cannot be fetched."""
    with (
        local_cluster(1, 1, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as other,
    ):
        data = other.persist(lazy_array(X))

    with pytest.raises(DataUnavailableError, match="X is a Dask collection that was"):
        DaskSearchCV(grid(), client=client).fit(data, y)


def failing(block: np.ndarray) -> np.ndarray:
    """Fail, as reading data may."""
    if block.size:
        msg = "a block that cannot be read"
        raise OSError(msg)
    return block


def test_an_error_of_the_collection_is_its_own(client: Client) -> None:
    """With a note of where it came from."""
    data = lazy_array(X).map_blocks(failing, dtype=X.dtype, meta=X[:0])

    with pytest.raises(OSError, match="a block that cannot be read") as caught:
        DaskSearchCV(grid(), client=client).fit(data, y)

    assert any("while computing X" in note for note in caught.value.__notes__)


def test_no_worker_computes_nothing() -> None:
    """It is waited for workers as long as for those of fits."""
    with (
        local_cluster(0, 1, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
        pytest.raises(NoWorkersError, match=r"no Dask worker within 0\.5 s"),
    ):
        DaskSearchCV(grid(), client=client, worker_timeout=0.5).fit(lazy_array(X), y)


# --- too large ------------------------------------------------------------------------


@pytest.mark.parametrize("with_client", [True, False])
def test_what_is_known_to_be_too_large_is_not_computed(
    with_client: bool,  # noqa: FBT001 (a parameter of the test)
    client: Client,
    tmp_path: Path,
) -> None:
    """The error names it, its size and the room."""
    huge = da.concatenate(
        [noting(tmp_path / "log"), da.ones((10**13, 4), chunks=(10**12, 4))]
    )

    with pytest.raises(DataTooLargeError, match=r"X takes at least \d+\.\d+ TiB"):
        computed({"X": huge}, client if with_client else None)

    assert not (tmp_path / "log").exists()


def test_what_turns_out_to_be_too_large_is_told() -> None:
    """An array of unknown length is counted while it is computed."""
    blocks = da.ones((40 * 2**21, 1), chunks=(2**21, 1))  # 40 of 16 MiB
    with (
        local_cluster(1, 1, memory_limit="512 MiB", dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
        pytest.raises(DataTooLargeError, match=r"a worker has 512\.00 MiB"),
    ):
        computed({"X": blocks[blocks[:, 0] > 0]}, client)


# --- other ways in --------------------------------------------------------------------


def test_upload_computes(client: Client, tmp_path: Path) -> None:
    """With the client that has the parts; a reference is to what they compute to."""
    persisted = client.persist(lazy_array(X))

    one, two = upload(persisted, lazy_array(y), store=tmp_path)
    same, _ = upload(X, y, store=tmp_path)

    assert one == same
    found = DaskSearchCV(grid(), client=client, store=tmp_path).fit(one, two)
    assert difference(grid().fit(X, y), found.search_) is None


def test_a_submitted_run_gets_what_was_computed(client: Client, tmp_path: Path) -> None:
    """Its driver, another process, has no part of the collection."""
    search = DaskSearchCV(grid(), client=client, store=tmp_path)

    run = search.submit(client.persist(lazy_array(X)), lazy_frame(TARGET))

    found = run.result(timeout=WAIT_S)
    assert difference(grid().fit(X, TARGET), found) is None


def test_fits_of_the_joblib_backend(client: Client) -> None:
    """``cross_validate`` gives the slots what the collections compute to."""
    weights = np.linspace(0.1, 2, len(y))
    expected = cross_validate(tree(), X, y, params={"sample_weight": weights})

    with joblib.parallel_config("dask_hpsearch", client=client), client.as_current():
        found = cross_validate(
            tree(),
            lazy_array(X).persist(),
            lazy_array(y),
            params={"sample_weight": lazy_array(weights)},
        )

    np.testing.assert_array_equal(found["test_score"], expected["test_score"])


def kind_and_sum(data: Any, factor: int) -> tuple[type, float]:
    """Use a collection as one, and as an array."""
    total = data.sum().compute(scheduler="synchronous") * factor
    assert isinstance(plain(data), np.ndarray | pd.DataFrame)
    return type(data), float(np.sum(total))


@pytest.mark.parametrize("persisted", [False, True], ids=["lazy", "persisted"])
@pytest.mark.parametrize("kind", ["array", "unknown length", "frame"])
def test_calls_of_the_joblib_backend(
    kind: str,
    persisted: bool,  # noqa: FBT001 (a parameter of the test)
    client: Client,
) -> None:
    """A function gets the collection that it expects, with its parts there."""
    data = ARRAYS[kind]()
    given = client.persist(data) if persisted else data

    with joblib.parallel_config("dask_hpsearch", client=client):
        found = joblib.Parallel(n_jobs=2)(
            joblib.delayed(kind_and_sum)(given, factor) for factor in range(3)
        )

    assert [kind for kind, _ in found] == [type(data)] * 3
    np.testing.assert_allclose([one for _, one in found], [0, X.sum(), 2 * X.sum()])


def test_calls_compute_a_collection_once(client: Client, tmp_path: Path) -> None:
    """Not in every call."""
    log = tmp_path / "log"

    with joblib.parallel_config("dask_hpsearch", client=client):
        joblib.Parallel(n_jobs=2)(
            joblib.delayed(kind_and_sum)(data, factor)
            for data in [noting(log)]
            for factor in range(4)
        )

    assert len(log.read_text().split()) == 3
