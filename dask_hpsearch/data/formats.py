"""Reads data files of each format, as arrays or tables for scikit-learn."""

from __future__ import annotations

import contextlib
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np

from dask_hpsearch.exceptions import DataFormatError, UntrustedObjectError
from dask_hpsearch.extras import install_command
from dask_hpsearch.localfs.checksums import checksum

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from dask_hpsearch.data.sources import Format, ObjectPin, Source

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
    """Return the format of a file name by its suffix; None if it is unknown."""
    matching = [suffix for suffix in SUFFIXES if url.lower().endswith(suffix)]
    return SUFFIXES[max(matching, key=len)] if matching else None


def read(source: Source, one: ObjectPin, path: Path) -> Any:
    """Read one of a source's objects from a local file.

    Returns
    -------
    array, sparse matrix, DataFrame, or table of pyarrow's
        For `whole`.

    Raises
    ------
    DataFormatError
        If the file has another format, or lacks a column.
    UntrustedObjectError
        If it is, or contains, an unsigned pickle.
    """
    with _map_read_errors(source):
        return _READERS[source.format](source, one, path)


def whole(source: Source, parts: list[Any]) -> Any:
    """Combine the parts of a source.

    Parameters
    ----------
    source : Source
    parts : list
        In the order of its objects, as `read` returns them.

    Returns
    -------
    array, sparse matrix, DataFrame or Series

    Raises
    ------
    DataFormatError
        If the parts are not of one table.
    """
    with _map_read_errors(source):
        if source.format not in _WHOLE:
            return parts[0]
        table = _WHOLE[source.format](parts)
        if source.take:
            return table[source.take]
        if source.leave:
            table = table.drop(columns=list(source.leave))
        return table.iloc[:, 0] if source.flat and len(table.columns) == 1 else table


@contextlib.contextmanager
def _map_read_errors(source: Source) -> Iterator[None]:
    try:
        yield
    except (DataFormatError, UntrustedObjectError):
        raise
    except ImportError as error:
        msg = (
            f"reading {source.name} needs the package {error.name!r}, which is not "
            f"installed, here or on a worker: {install_command('tables')}"
        )
        raise DataFormatError(msg) from error
    except Exception as error:
        msg = (
            f"{source.name} cannot be read as {source.format}: "
            f"{type(error).__name__}: {error}"
        )
        raise DataFormatError(msg) from error


def _read_npy(source: Source, one: ObjectPin, path: Path) -> Any:
    del one
    with map_pickle_errors(source.name):
        return np.load(path, mmap_mode="c").view(np.ndarray)


def _read_npz(source: Source, one: ObjectPin, path: Path) -> Any:
    del one
    with map_pickle_errors(source.name), np.load(path) as arrays:
        if is_sparse(arrays.files):
            from scipy import sparse

            return sparse.load_npz(path)
        return arrays[source.take or arrays.files[0]]


def is_sparse(names: list[str]) -> bool:
    """Whether arrays of these names are one sparse matrix."""
    return set(names) >= SPARSE


def _read_parquet(source: Source, one: ObjectPin, path: Path) -> Any:
    import pyarrow.parquet as pq

    del one
    columns = [source.take] if source.take else None
    with pq.ParquetFile(path) as file:
        return file.read(columns=columns, use_pandas_metadata=len(source.objects) == 1)


def _whole_parquet(parts: list[Any]) -> Any:
    import pyarrow as pa

    if len(parts) == 1:
        return parts[0].to_pandas()
    table = pa.concat_tables(parts, promote_options="default")
    # The index metadata of the first part describes only that part.
    return table.replace_schema_metadata(None).to_pandas()


def _read_csv(source: Source, one: ObjectPin, path: Path) -> Any:
    import pandas as pd

    columns = [source.take] if source.take else None
    compression: Any = "gzip" if one.url.lower().endswith(".gz") else None
    return pd.read_csv(path, usecols=columns, compression=compression)


def _whole_csv(parts: list[Any]) -> Any:
    import pandas as pd

    return parts[0] if len(parts) == 1 else pd.concat(parts, ignore_index=True)


def _read_joblib(source: Source, one: ObjectPin, path: Path) -> Any:
    import joblib

    del source
    signed = one.checksum.startswith("sha256:")
    if not signed or checksum(path, "sha256") != one.checksum:
        raise unsigned(one.url)
    return joblib.load(path)  # signed by this user


_READERS: dict[str, Callable[[Source, ObjectPin, Path], Any]] = {
    "npy": _read_npy,
    "npz": _read_npz,
    "parquet": _read_parquet,
    "csv": _read_csv,
    "joblib": _read_joblib,
}
_WHOLE: dict[str, Callable[[list[Any]], Any]] = {
    "parquet": _whole_parquet,
    "csv": _whole_csv,
}


def unsigned(url: str) -> UntrustedObjectError:
    """Return the error of a pickle that this user has not signed."""
    way = f"sign it with dask_hpsearch.sign({url!r})"
    if format_of(url) is None:
        way = (
            "save it with joblib.dump as .joblib, and sign that with dask_hpsearch.sign"
        )
    return UntrustedObjectError(
        f"{url} is a pickle that you have not signed, and was not loaded: loading a pickle runs "
        f"the code in it. If you know who wrote it, {way}; or save the data as .npy or "
        ".parquet, or pass it once to dask_hpsearch.upload"
    )


@contextlib.contextmanager
def map_pickle_errors(name: str) -> Iterator[None]:
    """Map numpy's error for Python objects to that of an unsigned pickle."""
    try:
        yield
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        if "allow_pickle" in str(error):
            raise has_objects(name) from error
        msg = f"{name} is damaged or truncated: {error}"
        raise DataFormatError(msg) from error


def has_objects(name: str) -> UntrustedObjectError:
    """Return the error of an array of Python objects, which numpy saves as a pickle."""
    return UntrustedObjectError(
        f"{name} contains an array of Python objects, which is a pickle, and was not loaded: "
        "save it with a numeric or text dtype, or as .parquet, or pass it to "
        "dask_hpsearch.upload"
    )
