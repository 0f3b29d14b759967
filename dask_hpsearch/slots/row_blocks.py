"""Data in memory that remembers the blocks of rows of the Dask collection that it was.

**Runs in slots**, too: a training task selects the rows of a block.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dask_hpsearch.exceptions import DataFormatError

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True, eq=False)
class RowBlocks:
    """Data and the sizes of its blocks.

    Attributes
    ----------
    value : ndarray, sparse matrix or DataFrame
    sizes : tuple of int
        Rows of each block.
    """

    value: Any
    sizes: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the data."""
        return tuple(self.value.shape)


def block_sizes(collection: Any) -> tuple[int, ...] | None:
    """Return the rows of each block of a Dask array or dataframe; None for anything else.

    Raises
    ------
    DataFormatError
        If the blocks of an array have unknown sizes.
    """
    chunks = getattr(collection, "chunks", None)
    if chunks:
        sizes = chunks[0]
        if any(math.isnan(size) for size in sizes):
            msg = (
                "the sizes of the blocks of X are not known: call X.compute_chunk_sizes() "
                "before the search"
            )
            raise DataFormatError(msg)
        return tuple(int(size) for size in sizes)
    if hasattr(collection, "map_partitions") and hasattr(collection, "divisions"):
        lengths = collection.map_partitions(len).compute()
        return tuple(int(length) for length in lengths)
    return None


def n_rows(value: Any) -> int:
    """Return the number of rows of data."""
    return int(value.shape[0]) if hasattr(value, "shape") else len(value)


def sizes_of(value: Any) -> tuple[int, ...]:
    """Return the rows of each block: one block, unless the data remembers others."""
    return value.sizes if isinstance(value, RowBlocks) else (n_rows(value),)


def rows_of(value: Any, rows: Sequence[int] | np.ndarray[Any, Any]) -> Any:
    """Select rows as an array, or sparse matrix, of its own; of None, None.

    An array has its rows one after the other in memory, whatever the data were: sums have
    the same order.
    """
    if isinstance(value, RowBlocks):
        value = value.value
    if value is None:
        return None
    if hasattr(value, "iloc"):
        return np.ascontiguousarray(value.iloc[rows].to_numpy())
    if hasattr(value, "tocsr"):
        return value.tocsr()[rows]
    return np.ascontiguousarray(np.asarray(value)[rows])
