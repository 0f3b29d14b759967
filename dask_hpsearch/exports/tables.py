"""The candidates of a run as a table in a file: CSV or Parquet."""

from __future__ import annotations

import io
import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dask_hpsearch.exceptions import StoreNameError
from dask_hpsearch.extras import map_import_errors
from dask_hpsearch.stores import open_store

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from dask_hpsearch.exports.candidate_result import CandidateResult

Target = str | os.PathLike[str]


def to_csv(
    trials: pd.DataFrame, results: Sequence[CandidateResult], path: Target
) -> None:
    """Write a table as CSV, with a line of names.

    Parameters
    ----------
    trials : DataFrame
        As `SearchRun.trials` returns it.
    results : sequence of CandidateResult
        Of the same candidates, in the same order.
    path : str or path-like
        A local path, or the URL of a file in a store; an existing file is replaced.

    Raises
    ------
    StoreError
        If it cannot be written.
    """
    table = _table(trials, results)
    _write(path, table.to_csv(index=False).encode())


def to_parquet(
    trials: pd.DataFrame, results: Sequence[CandidateResult], path: Target
) -> None:
    """Write a table as Parquet; see `to_csv`.

    A column of values of several types becomes one of texts.

    Raises
    ------
    MissingExtraError
        If pyarrow is not installed.
    StoreError
        If it cannot be written.
    """
    with map_import_errors("to_parquet()"):
        import pyarrow as pa  # noqa: F401 (whether it is there)
    content = io.BytesIO()
    table = _table(trials, results)
    for name in table.columns:
        if table[name].dtype == object:
            table[name] = _of_one_type(list(table[name]))
    table.to_parquet(content, engine="pyarrow", index=False)
    _write(path, content.getvalue())


def _table(trials: pd.DataFrame, results: Sequence[CandidateResult]) -> pd.DataFrame:
    """Add states and times to a table; parameters become one JSON text each."""
    import pandas as pd

    table = trials.copy()
    table["state"] = pd.Series([str(one.state) for one in results], dtype=object)
    for name in ("started", "ended"):
        seconds = [getattr(one, name) for one in results]
        table[name] = pd.to_datetime(
            pd.Series(seconds, dtype=float), unit="s", utc=True
        )
    if "params" in table:
        table["params"] = [json.dumps(one) for one in table["params"]]
    return table


def _of_one_type(values: Sequence[Any]) -> list[Any]:
    """Return values that are all of one type; otherwise their texts; missing as None."""
    known = [None if _is_missing(one) else one for one in values]
    kinds = {type(one) for one in known if one is not None}
    if len(kinds) < 2 and kinds <= {bool, int, float, str}:  # noqa: PLR2004 (one type)
        return known
    if kinds == {int, float}:
        return [None if one is None else float(one) for one in known]
    return [
        one if one is None or isinstance(one, str) else json.dumps(one, default=str)
        for one in known
    ]


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _write(path: Target, content: bytes) -> None:
    """Write a file by its path or URL, whole or not at all.

    Raises
    ------
    StoreNameError
        If it names no file.
    StoreError
        If it cannot be written.
    """
    text = os.fspath(path)
    is_url = isinstance(path, str) and "://" in text
    folder, slash, name = text.rpartition("/")
    if not is_url:
        local = Path(text).expanduser()
        folder, name = str(local.parent), local.name
    if not name or (is_url and (not slash or folder.endswith(":/"))):
        msg = (
            "path must name a file, as trials.csv or gs://BUCKET/FOLDER/trials.csv, got "
            f"{text!r}"
        )
        raise StoreNameError(msg)
    open_store(folder).replace(name, content)
