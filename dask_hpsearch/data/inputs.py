"""The arguments of ``fit``: data, references from `upload`, or URLs.

A string for data is a URL or a path; for a target, weights or groups, it may also be the name
of a column of the table X.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sized
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote

from dask_hpsearch.data import formats, remote_files
from dask_hpsearch.data.headers import Header, header_of
from dask_hpsearch.data.signing import signed
from dask_hpsearch.data.sources import DataReference, Reference, Source
from dask_hpsearch.exceptions import (
    DataFormatError,
    ObjectNotFoundError,
    UntrustedObjectError,
)
from dask_hpsearch.stores import open_store

# Arguments of fit that may be a URL or a column's name; `upload`'s references may be any.
_BY_NAME = ("sample_weight", "groups")
_PICKLES = (".pkl", ".pickle")
_TABLES = ("parquet", "csv")
_TWO = 2  # dimensions


@dataclass(frozen=True, slots=True)
class FitData:
    """The arguments of a search's ``fit``, each data or a reference."""

    X: Any
    y: Any
    params: dict[str, Any]

    def named(self) -> dict[str, Any]:
        """Return them by their names in errors and in a run's manifest."""
        return {"X": self.X, "y": self.y} | self.params


def is_reference(value: Any) -> bool:
    """Whether a value is a reference to data."""
    return isinstance(value, Reference)


def refer(X: Any, y: Any, params: dict[str, Any]) -> FitData:
    """Find and pin the objects of URLs, and check them without reading all of them.

    Parameters
    ----------
    X, y, params
        As `DaskSearchCV.fit` takes them.

    Raises
    ------
    ObjectNotFoundError, StorePermissionError, StoreError
        If an object is missing, or cannot be read.
    DataFormatError
        If shape, length or format is wrong, or a column is missing.
    UntrustedObjectError
        If it is a pickle that this user has not signed.
    """
    if not _has_references(X, y, params):
        return FitData(X, y, params)
    table = _located(X, "X") if _is_text(X) else X
    given = {"y": y} | params
    found: dict[str, Any] = {}
    for name, value in given.items():
        may_be_text = name == "y" or name in _BY_NAME
        found[name] = (
            _part(value, name, table) if may_be_text and _is_text(value) else value
        )
    table = _without(table, list(found.values()))
    data = FitData(table, found.pop("y"), found)
    check(data)
    return data


def check(data: FitData) -> None:
    """Check shapes and lengths, as far as they are known.

    Raises
    ------
    DataFormatError
        If a shape is wrong, or lengths differ; names the arguments.
    """
    lengths: dict[str, int] = {}
    for name, value in data.named().items():
        shown = f"{name} ({value.name})" if is_reference(value) else name
        if isinstance(value, Source):
            header = header_of(value)
            _check_shape(name, shown, header)
            length = None if header.shape is None else header.shape[0]
        else:
            if isinstance(value, DataReference):
                _check_there(value)
            length = n_samples(value)
        if length is not None and (
            name in ("X", "y", *_BY_NAME) or is_reference(value)
        ):
            lengths[shown] = length
    check_lengths(lengths)


def _check_there(reference: DataReference) -> None:
    """Check that uploaded data still exists."""
    found = [
        one
        for one in open_store(reference.store).list(reference.digest)
        if one.name == reference.digest
    ]
    if not found:
        msg = f"the uploaded data {reference.name} was deleted: upload it again"
        raise ObjectNotFoundError(msg)
    if found[0].nbytes != reference.nbytes:
        msg = (
            f"{reference.name} was altered: it has {found[0].nbytes} bytes, but "
            f"{reference.nbytes} were uploaded. Delete it, and upload it again"
        )
        raise UntrustedObjectError(msg)


def check_values(values: dict[str, Any], data: FitData) -> None:
    """Check the lengths of data that were read.

    Raises
    ------
    DataFormatError
        Names the arguments that differ.
    """
    lengths = {}
    for name, reference in data.named().items():
        length = n_samples(values[name])
        if is_reference(reference):
            name = f"{name} ({reference.name})"  # noqa: PLW2901
        elif name not in ("X", "y", *_BY_NAME):
            continue
        if length is not None:
            lengths[name] = length
    check_lengths(lengths)


def check_lengths(lengths: dict[str, int]) -> None:
    """Refuse data of different lengths.

    Raises
    ------
    DataFormatError
        Names the arguments that differ.
    """
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        msg = f"the data differ in their number of samples: {shown}"
        raise DataFormatError(msg)


def n_samples(value: Any) -> int | None:
    """Return the number of samples, if it is known."""
    if isinstance(value, DataReference):
        return value.n_samples
    if isinstance(value, Source):
        return None
    shape = getattr(value, "shape", None)
    if shape:
        return int(shape[0])
    return len(value) if isinstance(value, Sized) and not _is_text(value) else None


# --- one argument ---------------------------------------------------------------------


def _has_references(X: Any, y: Any, params: dict[str, Any]) -> bool:
    texts = (X, y, *(params.get(name) for name in _BY_NAME))
    return any(map(_is_text, texts)) or any(map(is_reference, (X, y, *params.values())))


def _is_text(value: Any) -> bool:
    return isinstance(value, str | os.PathLike)


def _part(value: Any, name: str, X: Any) -> Source:
    """Find a target or other argument: by URL, or as a column of X."""
    text = os.fspath(value)
    table = X if isinstance(X, Source) and X.format in (*_TABLES, "npz") else None
    is_url = "://" in text or formats.format_of(text) is not None
    if is_url or (os.sep in text and table is None):
        source = replace(_located(value, name), flat=True)
        return _array_for(name, source, []) if source.format == "npz" else source
    if table is None:
        kind = X.name if is_reference(X) else "no data by URL"
        msg = (
            f"{name} must be data, a URL, a path, or a column of a table X, got {text!r}: X "
            f"({kind}) is not a table"
        )
        raise DataFormatError(msg)
    return replace(table, take=text)


def _without(X: Any, others: list[Any]) -> Any:
    """Exclude columns from X that are other arguments."""
    if not isinstance(X, Source):
        return X
    taken = [one.take for one in others if isinstance(one, Source) and one.take]
    excluded = [
        one.take
        for one in others
        if isinstance(one, Source) and one.take and one.objects == X.objects
    ]
    if X.format != "npz":
        return replace(X, leave=tuple(dict.fromkeys(excluded)))
    return _array_for("X", X, taken)


def _array_for(name: str, source: Source, taken: list[str]) -> Source:
    """Select an array of several: the one of this name, or the only one left."""
    columns = header_of(source).columns
    if columns is None:  # a sparse matrix
        return source
    left = [column for column in columns if column not in taken]
    if name in left:
        return replace(source, take=name)
    if len(left) == 1:
        return replace(source, take=left[0])
    msg = (
        f"{source.name} holds the arrays {', '.join(map(repr, columns))}: name the one "
        f"for {name} {name!r}, or keep it in a separate file"
    )
    raise DataFormatError(msg)


def _located(value: Any, name: str) -> Source:
    """Pin the objects of a URL or a path."""
    url = remote_files.url_of(value)
    pattern = any(sign in url.partition("://")[2] for sign in "*?[")
    kind = formats.format_of(url)
    may_be_folder = kind in (None, "parquet")
    if pattern or url.endswith("/") or (may_be_folder and remote_files.is_folder(url)):
        return _parts(url, name)
    if kind is None:
        raise _unknown(url, name)
    if kind == "joblib":
        return Source((signed(url),), kind)
    return Source((remote_files.pin(url),), kind)


def _parts(url: str, name: str) -> Source:
    """Pin the parts of a table."""
    pins = remote_files.pin_all(url)
    if not pins:
        raise remote_files.not_found(url)
    kinds = {formats.format_of(one.url) for one in pins}
    if len(kinds) > 1 or not kinds <= set(_TABLES):
        others = [one.url for one in pins if formats.format_of(one.url) not in _TABLES]
        msg = (
            f"{name}: a folder or a pattern must name the parts of one table, all .parquet "
            f"or all .csv; {url} names {(others or [one.url for one in pins])[0]} too"
        )
        raise DataFormatError(msg)
    fixed = len(re.split(r"[*?\[]", url)[0].rpartition("/")[0])
    partitioned = [one.url for one in pins if "=" in unquote(one.url[fixed:])]
    if partitioned:
        msg = (
            f"{partitioned[0]} is part of a partitioned table, with columns in the names of "
            "folders, which is not supported: write the table without partitions"
        )
        raise DataFormatError(msg)
    (kind,) = kinds
    assert kind is not None  # noqa: S101 (it is one of the tables')
    return Source(tuple(pins), kind)


def _unknown(url: str, name: str) -> Exception:
    if url.lower().endswith(_PICKLES):
        return formats.unsigned(url)
    suffixes = " ".join(formats.SUFFIXES)
    msg = (
        f"{name} must be a file that ends with one of {suffixes}, or a folder of .parquet "
        f"files, got {url!r}"
    )
    return DataFormatError(msg)


# --- shapes ---------------------------------------------------------------------------


def _check_shape(name: str, shown: str, header: Header) -> None:
    shape = header.shape
    if shape is None:
        return
    if not shape or not shape[0]:
        msg = f"{shown} has no samples: its shape is {shape}"
        raise DataFormatError(msg)
    if name == "X":  # texts may be one per sample
        fits = len(shape) >= _TWO or header.kind not in tuple("biufc")
        needed = "rows and columns, (n_samples, n_features)"
    elif name == "y":
        fits = len(shape) <= _TWO
        needed = "one value per sample, or one row"
    else:
        fits = name not in _BY_NAME or len(shape) == 1 or shape[1:] == (1,)
        needed = "one value per sample"
    if not fits:
        msg = f"{shown} must have {needed}, got the shape {shape}"
        raise DataFormatError(msg)
