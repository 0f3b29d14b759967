from __future__ import annotations

import gzip
import pickle
import uuid
from typing import TYPE_CHECKING, Any

import fsspec
import joblib
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.model_selection import GridSearchCV, GroupKFold, RandomizedSearchCV
from sklearn.tree import DecisionTreeClassifier

import dask_hpsearch
from dask_hpsearch import DaskSearchCV, SearchRun
from dask_hpsearch.data import remote_files
from dask_hpsearch.data.inputs import refer
from dask_hpsearch.exceptions import (
    DataChangedError,
    DataFormatError,
    ObjectNotFoundError,
    RunFailedError,
    UntrustedObjectError,
)
from tests.estimators import flowers
from tests.oracle.structure import difference

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from distributed import Client

X, y = flowers()
TABLE = pd.DataFrame(X, columns=list("abcd")).assign(label=y)


def search(**options: Any) -> GridSearchCV:
    """Make a small search."""
    tree = DecisionTreeClassifier(random_state=0)
    return GridSearchCV(tree, {"max_depth": [1, 2]}, **options)


def save_npy(folder: Path) -> dict[str, Any]:
    """Save the flowers, and return what fit is given."""
    np.save(folder / "X.npy", X)
    np.save(folder / "y.npy", y)
    return {"X": str(folder / "X.npy"), "y": (folder / "y.npy").as_uri()}


def save_fortran(folder: Path) -> dict[str, Any]:
    """Save the flowers, and return what fit is given."""
    np.save(folder / "X.npy", np.asfortranarray(X))
    return {"X": folder / "X.npy", "y": y}


def save_npz(folder: Path) -> dict[str, Any]:
    """Save the flowers, and return what fit is given."""
    np.savez_compressed(folder / "both.npz", X=X, target=y)
    return {"X": str(folder / "both.npz"), "y": "target"}


def save_sparse(folder: Path) -> dict[str, Any]:
    """Save the flowers, and return what fit is given."""
    sparse.save_npz(folder / "X.npz", sparse.csr_matrix(X))
    return {"X": str(folder / "X.npz"), "y": y}


def save_parquet(folder: Path) -> dict[str, Any]:
    """Save the flowers, and return what fit is given."""
    TABLE.to_parquet(folder / "table.parquet")
    return {"X": str(folder / "table.parquet"), "y": "label"}


def save_parquet_folder(folder: Path) -> dict[str, Any]:
    """Save the flowers, and return what fit is given."""
    (folder / "table.parquet").mkdir()
    TABLE[:40].to_parquet(folder / "table.parquet" / "part-0.parquet")
    TABLE[40:].to_parquet(folder / "table.parquet" / "part-1.parquet")
    (folder / "table.parquet" / "_SUCCESS").touch()
    return {"X": str(folder / "table.parquet"), "y": "label"}


def save_odd_names(folder: Path) -> dict[str, Any]:
    """Save the flowers, and return what fit is given."""
    place = folder / "year=2026 (50%)"
    place.mkdir()
    TABLE.rename(columns={"label": "km/h"}).to_parquet(place / "a b-0.parquet")
    return {"X": f"{place}/a b-*.parquet", "y": "km/h"}


def save_csv(folder: Path) -> dict[str, Any]:
    """Save the flowers, and return what fit is given."""
    TABLE.to_csv(folder / "table.csv", index=False)
    return {"X": str(folder / "table.csv"), "y": "label"}


def save_csv_parts(folder: Path) -> dict[str, Any]:
    """Save the flowers, and return what fit is given."""
    for number, part in enumerate((TABLE[:50], TABLE[50:])):
        part.to_csv(folder / f"part-{number}.csv.gz", index=False)
    pd.Series(y, name="z").to_csv(folder / "y.csv", index=False)
    return {"X": str(folder / "part-*.csv.gz"), "y": str(folder / "y.csv")}


def save_joblib(folder: Path) -> dict[str, Any]:
    """Save the flowers, and return what fit is given."""
    joblib.dump(X, folder / "X.joblib")
    dask_hpsearch.sign(folder / "X.joblib")
    return {"X": str(folder / "X.joblib"), "y": y}


EXPECTED = {
    save_npy: (X, y),
    save_fortran: (np.asfortranarray(X), y),
    save_npz: (X, y),
    save_sparse: (sparse.csr_matrix(X), y),
    save_parquet: (TABLE[list("abcd")], TABLE["label"]),
    save_parquet_folder: (TABLE[list("abcd")], TABLE["label"]),
    save_odd_names: (TABLE[list("abcd")], TABLE["label"]),
    save_csv: (TABLE[list("abcd")], TABLE["label"]),
    save_csv_parts: (TABLE, pd.Series(y, name="z")),
    save_joblib: (X, y),
}


@pytest.mark.parametrize("save", EXPECTED, ids=lambda save: save.__name__)
def test_data_by_url_are_fitted_as_the_data_themselves(
    client: Client, tmp_path: Path, save: Callable[[Path], dict[str, Any]]
) -> None:
    """Every format gives what it holds, as numpy, scipy or pandas would read it."""
    expected = search().fit(*EXPECTED[save])

    found = DaskSearchCV(search(), client=client).fit(**save(tmp_path))

    assert difference(expected, found.search_) is None


def test_weights_and_groups_come_by_url_or_column(
    client: Client, tmp_path: Path
) -> None:
    """They are no features then; one that is a column of X leaves X."""
    weights, groups = np.linspace(1, 2, len(y)), np.arange(len(y)) % 5
    np.save(tmp_path / "w.npy", weights)
    TABLE.assign(group=groups).to_parquet(tmp_path / "table.parquet")
    own = search(cv=GroupKFold(3))
    expected = own.fit(
        TABLE[list("abcd")], TABLE["label"], sample_weight=weights, groups=groups
    )

    found = DaskSearchCV(search(cv=GroupKFold(3)), client=client).fit(
        tmp_path / "table.parquet",
        "label",
        sample_weight=tmp_path / "w.npy",
        groups="group",
    )

    assert difference(expected, found.search_) is None


def test_what_lies_in_memory_is_read_too(client: Client) -> None:
    """``memory://`` is this process's: workers get it from here."""
    name = uuid.uuid4().hex
    with fsspec.open(f"memory://{name}/table.csv.gz", "wb") as file:
        file.write(gzip.compress(TABLE.to_csv(index=False).encode()))

    found = DaskSearchCV(search(), client=client).fit(
        f"memory://{name}/table.csv.gz", "label"
    )

    expected = search().fit(TABLE[list("abcd")], TABLE["label"])
    assert difference(expected, found.search_) is None


def test_other_routes_take_urls_as_well(client: Client, tmp_path: Path) -> None:
    """What is not our engine's gets the data."""
    save_npy(tmp_path)
    found = DaskSearchCV(search(), client=client, backend="joblib").fit(
        tmp_path / "X.npy", tmp_path / "y.npy"
    )

    assert difference(search().fit(X, y), found.search_) is None


def test_a_submitted_run_reads_what_was_pinned(client: Client, tmp_path: Path) -> None:
    """The driver finds the data by the manifest; another process the result."""
    save_parquet(tmp_path)

    run = DaskSearchCV(search(), client=client).submit(
        tmp_path / "table.parquet", "label"
    )

    expected = search().fit(TABLE[list("abcd")], TABLE["label"])
    assert difference(expected, SearchRun.attach(run.url).result(60)) is None


def test_a_change_is_an_error_that_names_both_versions(tmp_path: Path) -> None:
    """A run that begins with one version never goes on with another."""
    save_npy(tmp_path)
    data = refer(tmp_path / "X.npy", y, {})
    before = data.X.objects[0].checksum
    np.save(tmp_path / "X.npy", X + 1)

    with pytest.raises(DataChangedError, match=r"X\.npy") as caught:
        remote_files.download(data.X.objects[0], tmp_path / "copy")
    assert before in str(caught.value)
    assert remote_files.pin((tmp_path / "X.npy").as_uri()).checksum in str(caught.value)


def test_a_run_does_not_resume_on_changed_data(client: Client, tmp_path: Path) -> None:
    """Its driver says which object changed."""
    save_npy(tmp_path)
    tree = DecisionTreeClassifier(random_state=0)
    own = RandomizedSearchCV(tree, {"max_depth": [1, 2, 3]}, n_iter=1, random_state=0)
    run = DaskSearchCV(own, client=client).submit(tmp_path / "X.npy", y)
    run.wait(60)
    np.save(tmp_path / "X.npy", X + 1)

    run.extend(1, client)

    with pytest.raises(RunFailedError, match=r"X\.npy was changed since the run began"):
        run.result(60)


def test_uploaded_data_serve_many_searches(client: Client, tmp_path: Path) -> None:
    """They are written once; a reference is small and outlives its process."""
    references = dask_hpsearch.upload(X, y, store=tmp_path / "store")
    again = dask_hpsearch.upload(X, y, store=tmp_path / "store")

    assert references == again
    X_ref, y_ref = pickle.loads(pickle.dumps(references))
    assert len(pickle.dumps(references)) < 1000
    for store in (tmp_path / "store", tmp_path / "another"):
        found = DaskSearchCV(search(), client=client, store=store).fit(X_ref, y_ref)
        assert difference(search().fit(X, y), found.search_) is None
    run = DaskSearchCV(search(), client=client, store=tmp_path / "store").submit(
        X_ref, y_ref
    )
    assert difference(search().fit(X, y), run.result(60)) is None


@pytest.mark.parametrize("kind", [sparse.csr_matrix, pd.DataFrame, np.asfortranarray])
def test_whatever_is_uploaded_comes_back(
    client: Client, tmp_path: Path, kind: Callable[[Any], Any]
) -> None:
    """Sparse matrices and tables too; weights and groups in any order."""
    weights, groups = np.linspace(1, 2, len(y)), np.arange(len(y)) % 5
    references = dask_hpsearch.upload(kind(X), y, weights, groups, store=tmp_path)
    own = search(cv=GroupKFold(3))

    found = DaskSearchCV(own, client=client).fit(
        references[0], references[1], sample_weight=references[2], groups=references[3]
    )

    expected = own.fit(kind(X), y, sample_weight=weights, groups=groups)
    assert difference(expected, found.search_) is None


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (("missing.npy", y), ObjectNotFoundError, r"no object .*missing\.npy"),
        (("missing/*.parquet", y), ObjectNotFoundError, "no object"),
        (("X.txt", y), DataFormatError, r"\.parquet.*X\.txt"),
        (("X.npy", "short.npy"), DataFormatError, "X .*has 90, y .*has 80"),
        (("X.npy", y[:5]), DataFormatError, "X .*has 90, y has 5"),
        (("short.npy", None), DataFormatError, "X .* must have rows and columns"),
        (("X.npy", "cube.npy"), DataFormatError, "y .* must have one value"),
        (("table.parquet", "lbl"), DataFormatError, "no column 'lbl'.*'label'"),
        (("table.csv", "lbl"), DataFormatError, "no column 'lbl'.*'label'"),
        (("both.npz", "trgt"), DataFormatError, "'target'"),
        (("X.npy", "label"), DataFormatError, "not a table"),
        (("X.npy", "both.npz"), DataFormatError, "'X', 'target'.*name the one for y"),
        (("split/*/*.parquet", "label"), DataFormatError, "partitions"),
        ((X, "label"), DataFormatError, "not a table"),
        (("pickle.joblib", y), UntrustedObjectError, r"pickle.*sign"),
        (("pickle.pkl", y), UntrustedObjectError, r"pickle.*sign"),
        (("objects.npy", y), UntrustedObjectError, "Python objects"),
        (("objects.npz", y), UntrustedObjectError, "Python objects"),
        (("cut.npy", y), DataFormatError, "cut off"),
        (("cut.parquet", "label"), DataFormatError, "not a whole one"),
        (("ftp://host/X.npy", y), DataFormatError, "gs://"),
        (("empty.npy", y), DataFormatError, "no samples"),
    ],
    ids=lambda value: None if isinstance(value, type) else str(value)[:40],
)
def test_what_cannot_work_is_told_before_a_fit(
    tmp_path: Path, arguments: Any, error: type[Exception], words: str
) -> None:
    """Without a cluster, and with the name of what is wrong."""
    save_npy(tmp_path)
    save_npz(tmp_path)
    save_parquet(tmp_path)
    save_csv(tmp_path)
    np.save(tmp_path / "short.npy", y[:80])
    np.save(tmp_path / "cube.npy", np.zeros((90, 2, 2)))
    np.save(tmp_path / "empty.npy", np.zeros((0, 2)))
    np.save(tmp_path / "objects.npy", np.array([[{}]] * 90), allow_pickle=True)
    np.savez(tmp_path / "objects.npz", X=np.array([[{}]] * 90))
    joblib.dump(X, tmp_path / "pickle.joblib")
    (tmp_path / "split" / "a=1").mkdir(parents=True)
    TABLE.to_parquet(tmp_path / "split" / "a=1" / "part.parquet")
    for name in ("X.npy", "table.parquet"):
        whole = (tmp_path / name).read_bytes()
        cut = tmp_path / f"cut{(tmp_path / name).suffix}"
        cut.write_bytes(whole[: len(whole) // 2])
    here = [
        str(tmp_path / one)
        if isinstance(one, str) and "." in one and "//" not in one
        else one
        for one in arguments
    ]

    for method in ("fit", "submit"):
        with pytest.raises(error, match=words):
            getattr(DaskSearchCV(search(), store=tmp_path / "store"), method)(*here)
    assert not (tmp_path / "store" / "runs").exists()


def test_lengths_that_only_reading_tells_leave_no_run(
    client: Client, tmp_path: Path
) -> None:
    """The rows of a CSV file are counted before the first fit."""
    save_csv(tmp_path)
    np.save(tmp_path / "short.npy", y[:80])

    with pytest.raises(DataFormatError, match=r"X .*has 90, y .*has 80"):
        DaskSearchCV(search(), client=client, store=tmp_path / "store").fit(
            tmp_path / "table.csv", tmp_path / "short.npy"
        )
    assert SearchRun.list(tmp_path / "store") == []


def test_a_signed_pickle_that_was_altered_is_refused(tmp_path: Path) -> None:
    """The signature is for the content."""
    save_joblib(tmp_path)
    joblib.dump(X + 1, tmp_path / "X.joblib")

    with pytest.raises(UntrustedObjectError):
        DaskSearchCV(search()).fit(tmp_path / "X.joblib", y)
