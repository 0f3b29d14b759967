"""Files of data, by format: what one holds, and its content as scikit-learn takes it."""

from __future__ import annotations

import contextlib
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np

from dask_hpsearch.checksums import checksum
from dask_hpsearch.errors import DataFormatError, UntrustedObjectError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from dask_hpsearch.data.sources import Format, Source

SUFFIXES: dict[str, Format] = {
    ".npy": "npy",
    ".npz": "npz",
    ".parquet": "parquet",
    ".csv": "csv",
    ".csv.gz": "csv",
    ".joblib": "joblib",
}
# Names of a sparse matrix's arrays, as scipy.sparse.save_npz writes them.
SPARSE = {"data", "format", "shape"}


def format_of(url: str) -> Format | None:
    """Tell a format by the end of a name; None if it is none of ours."""
    matching = [suffix for suffix in SUFFIXES if url.lower().endswith(suffix)]
    return SUFFIXES[max(matching, key=len)] if matching else None


def read(source: Source, paths: list[Path]) -> Any:
    """Read data from local files of a source's objects.

    Parameters
    ----------
    source : Source
    paths : list of Path
        In the order of its objects.

    Returns
    -------
    array, sparse matrix, DataFrame or Series

    Raises
    ------
    DataFormatError
        If a file is not what its name says, or lacks a column.
    UntrustedObjectError
        If it is a pickle that was not signed, or has one in it.
    """
    try:
        value = _READERS[source.format](source, paths)
    except (DataFormatError, UntrustedObjectError):
        raise
    except ImportError as error:
        msg = (
            f"reading {source.name} needs the module {error.name!r}: install "
            "dask-hpsearch[tables] here and on the workers"
        )
        raise DataFormatError(msg) from error
    except Exception as error:
        msg = (
            f"{source.name} cannot be read as {source.format}: "
            f"{type(error).__name__}: {error}"
        )
        raise DataFormatError(msg) from error
    is_table = hasattr(value, "columns")
    if source.flat and is_table and len(value.columns) == 1:
        return value.iloc[:, 0]
    return value


def _read_npy(source: Source, paths: list[Path]) -> Any:
    with refusing_pickles(source.name):
        return np.load(paths[0], mmap_mode="c").view(np.ndarray)


def _read_npz(source: Source, paths: list[Path]) -> Any:
    with refusing_pickles(source.name), np.load(paths[0]) as arrays:
        if is_sparse(arrays.files):
            from scipy import sparse

            return sparse.load_npz(paths[0])
        return arrays[source.take or arrays.files[0]]


def is_sparse(names: list[str]) -> bool:
    """Whether arrays of these names are one sparse matrix."""
    return set(names) >= SPARSE


def _read_parquet(source: Source, paths: list[Path]) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = [source.take] if source.take else None
    tables = []
    for path in paths:
        with pq.ParquetFile(path) as file:
            tables.append(
                file.read(columns=columns, use_pandas_metadata=len(paths) == 1)
            )
    table = tables[0]
    if len(tables) > 1:
        table = pa.concat_tables(tables, promote_options="default")
        table = table.replace_schema_metadata(None)  # an index of one part only
    return _part(table.to_pandas(), source)


def _read_csv(source: Source, paths: list[Path]) -> Any:
    import pandas as pd

    columns = [source.take] if source.take else None
    parts = [
        pd.read_csv(path, usecols=columns, compression=_compression(one.url))
        for path, one in zip(paths, source.objects, strict=True)
    ]
    whole = parts[0] if len(parts) == 1 else pd.concat(parts, ignore_index=True)
    return _part(whole, source)


def _compression(url: str) -> Any:
    return "gzip" if url.lower().endswith(".gz") else None


def _part(table: Any, source: Source) -> Any:
    if source.take:
        return table[source.take]
    return table.drop(columns=list(source.leave)) if source.leave else table


def _read_joblib(source: Source, paths: list[Path]) -> Any:
    import joblib

    expected = source.objects[0].checksum
    if not expected.startswith("sha256:") or checksum(paths[0], "sha256") != expected:
        raise unsigned(source.objects[0].url)
    return joblib.load(paths[0])  # what this user has signed


_READERS: dict[str, Callable[[Source, list[Path]], Any]] = {
    "npy": _read_npy,
    "npz": _read_npz,
    "parquet": _read_parquet,
    "csv": _read_csv,
    "joblib": _read_joblib,
}


def unsigned(url: str) -> UntrustedObjectError:
    """Make the error of a pickle that this user has not signed."""
    way = f"sign it with dask_hpsearch.sign({url!r})"
    if format_of(url) is None:
        way = (
            "save it with joblib.dump as .joblib, and sign that with dask_hpsearch.sign"
        )
    return UntrustedObjectError(
        f"{url} is a pickle that you have not signed, and was not loaded: loading one runs "
        f"whatever its writer put in it. If you know who wrote it, {way}; or keep the "
        "data as .npy or .parquet, or hand it over once with dask_hpsearch.upload"
    )


@contextlib.contextmanager
def refusing_pickles(name: str) -> Iterator[None]:
    """Turn numpy's refusal of Python objects into the error of an unsigned pickle."""
    try:
        yield
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        if "allow_pickle" in str(error):
            raise has_objects(name) from error
        msg = f"{name} is no whole file of its kind: {error}"
        raise DataFormatError(msg) from error


def has_objects(name: str) -> UntrustedObjectError:
    """Make the error of an array of Python objects, which numpy keeps as a pickle."""
    return UntrustedObjectError(
        f"{name} holds an array of Python objects, which is a pickle, and was not loaded: "
        "save it with a numeric or text dtype, or as .parquet, or hand it over with "
        "dask_hpsearch.upload"
    )
