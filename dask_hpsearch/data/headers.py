"""Headers of data by URL: shape and columns, from its first and last bytes only."""

from __future__ import annotations

import io
import zipfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dask_hpsearch.data import formats, remote_files
from dask_hpsearch.exceptions import DataFormatError, HPSearchError
from dask_hpsearch.extras import install_command

if TYPE_CHECKING:
    from collections.abc import Callable

    from dask_hpsearch.data.sources import Source

_FIRST_BYTES = 2**16
_MOST_PARTS = 4


@dataclass(frozen=True, slots=True)
class Header:
    """Facts about data that are known without reading it.

    Attributes
    ----------
    shape : tuple of int or None
        Of an array, or of a table with a known length.
    columns : tuple of str or None
        Names of a table's columns, or of an ``.npz`` file's arrays.
    kind : str
        Kind of an array's numbers, as numpy names it; "" if unknown.
    """

    shape: tuple[int, ...] | None = None
    columns: tuple[str, ...] | None = None
    kind: str = ""


def header_of(source: Source) -> Header:
    """Return the header of a source.

    Raises
    ------
    DataFormatError
        If its format is not that of its name.
    UntrustedObjectError
        If it contains Python objects.
    """
    try:
        return _HEADERS[source.format](source)
    except HPSearchError:
        raise
    except ImportError as error:
        msg = (
            f"reading {source.name} needs the package {error.name!r}, which is not "
            f"installed: {install_command('tables')}"
        )
        raise DataFormatError(msg) from error
    except Exception as error:
        msg = (
            f"{source.name} is not a {source.format} file, or not a whole one: "
            f"{type(error).__name__}: {error}"
        )
        raise DataFormatError(msg) from error


def _of_npy(source: Source) -> Header:
    (one,) = source.objects
    start = io.BytesIO(remote_files.read_part(one, 0, _FIRST_BYTES))
    header, dtype = _array_header(start, source.name)
    assert header.shape is not None  # noqa: S101 (an array has one)
    expected = start.tell() + int(np.prod(header.shape, dtype=object)) * dtype.itemsize
    if one.nbytes != expected:
        msg = (
            f"{source.name} is cut off or too long: it has {one.nbytes} bytes, but an array "
            f"of shape {header.shape} and dtype {dtype} takes {expected}"
        )
        raise DataFormatError(msg)
    return header


def _array_header(file: Any, name: str) -> tuple[Header, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    else:
        msg = f"{name} has version {version} of numpy's format: save it again"
        raise DataFormatError(msg)
    if dtype.hasobject:
        raise formats.has_objects(name)
    return Header(shape, None, dtype.kind), dtype


def _of_npz(source: Source) -> Header:
    with (
        remote_files.opened(source.objects[0]) as file,
        zipfile.ZipFile(file) as archive,
    ):
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        if formats.is_sparse(names):
            with archive.open("shape.npy") as member:
                shape = np.lib.format.read_array(member, allow_pickle=False)
            return Header(tuple(int(one) for one in shape), None, "f")
        if not names:
            msg = f"{source.name} holds no array"
            raise DataFormatError(msg)
        if source.take is not None:
            check_column(source, tuple(names))
        with archive.open(f"{source.take or names[0]}.npy") as member:
            header, _ = _array_header(member, source.name)
    return Header(header.shape, tuple(names), header.kind)


def _of_parquet(source: Source) -> Header:
    import pyarrow.parquet as pq

    n_rows: int | None = 0
    columns: tuple[str, ...] | None = None
    for number, one in enumerate(source.objects):
        if number == _MOST_PARTS:  # the other parts are counted when they are read
            n_rows = None
            break
        with remote_files.opened(one) as file, pq.ParquetFile(file) as parquet:
            n_rows += parquet.metadata.num_rows
            columns = columns or _column_names(parquet.schema_arrow)
    assert columns is not None  # noqa: S101 (a source has an object)
    return _of_table(source, n_rows, columns)


def _column_names(schema: Any) -> tuple[str, ...]:
    """Return the columns of the table in pandas, without its index."""
    index = (schema.pandas_metadata or {}).get("index_columns", [])
    return tuple(name for name in schema.names if name not in index)


def _of_csv(source: Source) -> Header:
    import pandas as pd

    one = source.objects[0]
    start = remote_files.read_part(one, 0, _FIRST_BYTES)
    if one.url.lower().endswith(".gz"):
        start = zlib.decompressobj(wbits=31).decompress(start, 2**20)
    first_line = start.split(b"\n", 1)[0]
    columns = tuple(map(str, pd.read_csv(io.BytesIO(first_line + b"\n")).columns))
    return _of_table(source, None, columns)


def _of_table(source: Source, n_rows: int | None, columns: tuple[str, ...]) -> Header:
    if source.take is not None:
        check_column(source, columns)
    for name in source.leave:
        check_column(source, columns, name)
    if n_rows is None:
        return Header(None, columns)
    if source.take is not None:
        return Header((n_rows,), columns)
    return Header((n_rows, len(columns) - len(source.leave)), columns)


def check_column(
    source: Source, columns: tuple[str, ...], name: str | None = None
) -> None:
    """Check that a column exists.

    Raises
    ------
    DataFormatError
        Names the existing ones.
    """
    name = source.take if name is None else name
    if name not in columns:
        shown = ", ".join(map(repr, columns[:20]))
        more = ", …" if len(columns) > 20 else ""  # noqa: PLR2004 (as many as shown)
        msg = f"{source.objects[0].url} has no column {name!r}: it has {shown}{more}"
        raise DataFormatError(msg)


def _of_joblib(source: Source) -> Header:
    del source
    return Header()


_HEADERS: dict[str, Callable[[Source], Header]] = {
    "npy": _of_npy,
    "npz": _of_npz,
    "parquet": _of_parquet,
    "csv": _of_csv,
    "joblib": _of_joblib,
}
