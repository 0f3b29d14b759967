"""Snapshots of fitted steps and of their output, exact in every bit.

A snapshot is a pickle with the data of its arrays beside it. An object that is loaded from it
has the values, types and order in memory of the original, because sums in another order
differ in their last digits. If this is not possible, there is no snapshot.
"""

from __future__ import annotations

import ctypes
import functools
import io
import pickle
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cloudpickle
import numpy as np

from dask_hpsearch.slots import shared_data

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_MOST_GAPS = 4  # bytes that an array spans in memory, per byte of its data
_COPY_ON_WRITE_SINCE = 3  # pandas' major version

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An object at one moment, kept in memory.

    Attributes
    ----------
    pickled : bytes
    buffers : sequence of bytes-like
        The data of its arrays, in order.
    """

    pickled: bytes
    buffers: Sequence[Any]

    @property
    def nbytes(self) -> int:
        """The size of the snapshot in bytes."""
        return len(self.pickled) + sum(len(buffer) for buffer in self.buffers)

    def kept(self) -> Snapshot:
        """Return a snapshot with its own copy of the data, since others may write to it."""
        return Snapshot(self.pickled, [bytes(buffer) for buffer in self.buffers])

    def load(self) -> Any:
        """Return a copy of the object."""
        return pickle.loads(self.pickled, buffers=map(bytearray, self.buffers))  # noqa: S301 (our own)


def snapshot_of(transformed: Any, step: Any, *, given: Any) -> Snapshot | None:
    """Take a snapshot of a step's output and the fitted step.

    Parameters
    ----------
    transformed, step : object
    given : object
        The step's input.

    Returns
    -------
    Snapshot or None
        A snapshot of the pair. None if a copy would differ in any way, or if the output
        shares memory with the input or the fitted step: a later step that writes to the
        output would change these too.
    """
    if transformed is given or shared_data.handing_out(transformed) is None:
        return None
    outputs = _taken(transformed)
    if outputs is None or _is_part_of(transformed, outputs.spans, given):
        return None
    pair = _taken((transformed, step))
    if pair is None:
        return None
    own = sum(span in pair.spans for span in outputs.spans)  # other spans are temporary
    if _overlapping(pair.spans, outputs.spans) != own:
        return None
    return Snapshot(pair.pickled, pair.buffers)


def snapshot_of_output(output: Any, *, given: Any, step: Any) -> Snapshot | None:
    """Take a snapshot of the output of a fitted step alone.

    Parameters
    ----------
    output : tuple of one object
    given, step : object
        The step's input, and the step.

    Returns
    -------
    Snapshot or None
        None if a copy would differ in any way, or if the output shares memory with the input
        or the step.
    """
    (transformed,) = output
    if transformed is given or shared_data.handing_out(transformed) is None:
        return None
    taken, of_step = _taken(output), _taken(step)
    if taken is None or of_step is None or _is_part_of(transformed, taken.spans, given):
        return None
    if _overlapping(taken.spans, of_step.spans):
        return None
    return Snapshot(taken.pickled, taken.buffers)


def exact_snapshot(value: Any) -> Snapshot | None:
    """Take a snapshot of any object; None if a copy would not be the same in every bit."""
    taken = _taken(value)
    return None if taken is None else Snapshot(taken.pickled, taken.buffers)


def memory_of(value: Any) -> list[memoryview] | None:
    """Return the memory of an object's arrays, then its pickle; None without a pickle."""
    taken = _taken(value)
    if taken is None:
        return None
    return [*taken.buffers, memoryview(taken.pickled)]


@dataclass(frozen=True, slots=True)
class _Taken:
    pickled: bytes
    buffers: list[Any]
    spans: list[Span]


class _ExactPickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Pickles arrays with their strides, and their data out of band.

    Attributes
    ----------
    exact : bool
        Whether all arrays so far will be loaded with their own strides.
    spans : list of (int, int)
        The memory of their data.
    """

    def __init__(self, file: io.BytesIO) -> None:
        self.exact = True
        self.buffers: list[Any] = []
        self.spans: list[Span] = []
        # Not a method of this object: that would keep the object and the data alive.
        take = functools.partial(_take, self.buffers, self.spans)
        super().__init__(file, protocol=5, buffer_callback=take)

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, np.ndarray) and not obj.flags.forc:
            if type(obj) is np.ndarray and not obj.dtype.hasobject:
                return self._reduce_strided(obj)
            self.exact = False
        return super().reducer_override(obj)

    def _reduce_strided(self, array: np.ndarray[Any, Any]) -> Any:
        start, end = _span_of(array)
        nbytes = end - start
        if nbytes > _MOST_GAPS * array.nbytes:
            self.exact = False
            return NotImplemented
        self.spans.append((start, end))
        before = array.__array_interface__["data"][0] - start
        content = pickle.PickleBuffer(_Gaps(ctypes.string_at(start, nbytes)))
        writable = array.flags.writeable
        return _strided, (
            content,
            array.dtype,
            array.shape,
            array.strides,
            before,
            writable,
        )


def _take(buffers: list[Any], spans: list[Span], buffer: pickle.PickleBuffer) -> None:
    raw = buffer.raw()
    buffers.append(raw)
    if raw.nbytes and not isinstance(raw.obj, _Gaps):
        start = np.frombuffer(raw, np.uint8).__array_interface__["data"][0]
        spans.append((start, start + raw.nbytes))


class _Gaps(bytearray):
    """The copied data of an array with gaps."""


def _strided(  # noqa: PLR0917 (called by pickle)
    content: Any,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    offset: int,
    writable: bool,  # noqa: FBT001
) -> np.ndarray[Any, Any]:
    """Make an array with the memory layout of the pickled one."""
    array: np.ndarray[Any, Any] = np.ndarray(shape, dtype, content, offset, strides)
    array.flags.writeable = writable
    return array


def _taken(value: Any) -> _Taken | None:
    """Pickle an object; None if it cannot be pickled exactly."""
    file = io.BytesIO()
    try:
        pickler = _ExactPickler(file)
        pickler.dump(value)
    except Exception:  # noqa: BLE001 (it is the user's)
        return None
    if not pickler.exact:
        return None
    return _Taken(file.getvalue(), pickler.buffers, pickler.spans)


def _is_part_of(transformed: Any, spans: Iterable[Span], given: Any) -> bool:
    """Whether a step returned its own input, perhaps altered, or a part of it."""
    if isinstance(given, list | tuple) or _is_copied_on_write(transformed):
        return False
    if isinstance(given, np.ndarray):
        return _overlapping(spans, [_span_of(given)]) > 0
    inputs = _taken(given)
    return inputs is None or _overlapping(spans, inputs.spans) > 0


def _is_copied_on_write(value: Any) -> bool:
    """Whether a frame copies shared memory before it writes to it."""
    pandas = sys.modules.get("pandas")
    return (
        pandas is not None
        and isinstance(value, pandas.DataFrame | pandas.Series)
        and int(pandas.__version__.partition(".")[0]) >= _COPY_ON_WRITE_SINCE
    )


def _span_of(array: np.ndarray[Any, Any]) -> Span:
    """Return the memory from an array's first byte to its last."""
    steps = [
        (size - 1) * stride
        for size, stride in zip(array.shape, array.strides, strict=True)
    ]
    first = array.__array_interface__["data"][0]
    before = sum(step for step in steps if step < 0)
    after = sum(step for step in steps if step > 0)
    return first + before, first + after + array.itemsize


def _overlapping(spans: Iterable[Span], others: Sequence[Span]) -> int:
    """Count the spans that overlap any of the others."""
    return sum(
        any(start < end_2 and start_2 < end for start_2, end_2 in others)
        for start, end in spans
    )
