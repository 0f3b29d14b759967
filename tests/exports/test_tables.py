"""The table of a run in a file: it reads back equal, wherever it is written."""

from __future__ import annotations

import io
import json
import uuid
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import GridSearchCV

from dask_hpsearch import DaskSearchCV, SearchRun
from dask_hpsearch.exceptions import StoreError, StoreNameError
from dask_hpsearch.stores import open_store
from tests.estimators import flowers
from tests.exports.kinds import KINDS, TREE, search_of

if TYPE_CHECKING:
    from pathlib import Path

    from distributed import Client

X, y = flowers()
# Beside the columns of trials().
MORE = ["state", "started", "ended"]


def run_of(search: Any, client: Client) -> SearchRun:
    """Fit a search; return its run."""
    store = f"memory://{uuid.uuid4().hex}"
    own = DaskSearchCV(search, client=client, store=store)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of failing fits
        own.fit(X, y)
    assert own.run_url_ is not None
    return SearchRun.attach(own.run_url_)


@pytest.fixture(scope="module")
def run(client: Client) -> SearchRun:
    """A finished run, with parameters of several types."""
    grid = {"max_depth": [None, 1, 2], "class_weight": [None, {0: 1, 1: 2, 2: 1}]}
    return run_of(GridSearchCV(TREE, grid, cv=2), client)


@pytest.mark.parametrize("kind", KINDS)
def test_tables_read_back_equal(kind: str, client: Client, tmp_path: Path) -> None:
    """All columns of numbers, and the parameters, of each kind of search."""
    run = run_of(search_of(kind), client)
    path = tmp_path / "new" / "trials"

    run.to_csv(path.with_suffix(".csv"))
    run.to_parquet(path.with_suffix(".parquet"))

    trials = run.trials()
    read = {
        "csv": pd.read_csv(path.with_suffix(".csv"), engine="python"),
        "parquet": pd.read_parquet(path.with_suffix(".parquet")),
    }
    for table in read.values():
        assert list(table.columns) == [*trials.columns, *MORE]
        assert [json.loads(one) for one in table["params"]] == list(trials["params"])
        for name in trials.select_dtypes("number").columns:
            np.testing.assert_array_equal(table[name], trials[name])
        assert len(table) == len(trials) > 0
        ended = pd.to_datetime(table["ended"])
        assert (pd.to_datetime(table["started"]) < ended).all()
    assert list(read["csv"]["state"]) == list(read["parquet"]["state"])


def test_parameters_of_several_types_are_texts_in_parquet(
    run: SearchRun, tmp_path: Path
) -> None:
    """None is missing; numbers stay numbers where all are."""
    run.to_parquet(tmp_path / "trials.parquet")

    table = pd.read_parquet(tmp_path / "trials.parquet")

    depths = table["param_max_depth"]
    assert sorted(depths.dropna().unique()) == [1, 2]
    assert depths.isna().sum() == 2
    assert set(table["param_class_weight"].dropna()) == {"{0: 1, 1: 2, 2: 1}"}


@pytest.mark.parametrize("kind", ["path", "file", "memory", "gs"])
def test_a_file_is_replaced_whole(
    kind: str, run: SearchRun, tmp_path: Path, gcs_bucket: str
) -> None:
    """By a path or a URL of each kind of store; no other file is left."""
    name = uuid.uuid4().hex
    folder = {
        "path": str(tmp_path),
        "file": tmp_path.as_uri(),
        "memory": f"memory://{name}",
        "gs": f"gs://{gcs_bucket}/{name}",
    }[kind]

    for _ in range(2):
        run.to_csv(f"{folder}/trials.csv")

    store = open_store(folder)
    assert [one.name for one in store.list()] == ["trials.csv"]
    assert len(pd.read_csv(io.BytesIO(store.read("trials.csv")))) == 6


@pytest.mark.parametrize("path", ["", "gs://bucket", "gs://bucket/", "file:///"])
def test_a_path_that_names_no_file_is_refused(path: str, run: SearchRun) -> None:
    """The error has an example."""
    with pytest.raises(StoreNameError, match=r"path must name a file, as trials.csv"):
        run.to_csv(path)


def test_a_folder_that_cannot_be_written_is_an_error(
    run: SearchRun, tmp_path: Path
) -> None:
    """It is a file."""
    (tmp_path / "file").write_text("")

    with pytest.raises(StoreError, match="file"):
        run.to_csv(tmp_path / "file" / "trials.csv")
