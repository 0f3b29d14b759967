"""Files with a pickled object, of which many processes map one copy.

A bundle is a pickle (protocol 5) whose buffers (array data, DataFrame blocks) lie beside
it, aligned, in one file. Loading maps the file: the buffers of all processes on a machine
are the same physical, read-only pages.

Layout: magic, number of buffers, length of the pickle; then offset and length of each
buffer; then the pickle and the buffers, each aligned to 64 bytes.
"""

from __future__ import annotations

import hashlib
import io
import mmap
import pickle
import struct
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import cloudpickle
import numpy as np

from dask_hpsearch.localfs.atomic import replaced_whole

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_MAGIC = b"hpsbndl1"
_NPY_MAGIC = b"\x93NUMPY"
_HEAD = struct.Struct("<8sQQ")
_ENTRY = struct.Struct("<QQ")
_ALIGNMENT = 64
_MODE = 0o600  # only the owner may read data
_DIGEST_LENGTH = 32
_MATRIX_DIMENSIONS = 2


class Bundle:
    """An encoded object, not yet written.

    Attributes
    ----------
    digest : str
        Hash of the content: equal objects have equal digests as far as their pickles
        are equal.
    nbytes : int
        Size of the file in bytes.
    """

    def __init__(self, value: Any) -> None:
        buffers: list[pickle.PickleBuffer] = []
        self._pickle = cloudpickle.dumps(
            _contiguous(value), protocol=5, buffer_callback=buffers.append
        )
        self._buffers = [buffer.raw() for buffer in buffers]
        self._offsets, self.nbytes = _place(self._pickle, self._buffers)
        self.digest = self._digest()

    def _digest(self) -> str:
        # SHA-256 has its own processor instructions: 1.5 GB/s and more.
        content = hashlib.sha256(self._header(), usedforsecurity=False)
        for part in (self._pickle, *self._buffers):
            content.update(part)
        return content.hexdigest()[:_DIGEST_LENGTH]

    def _header(self) -> bytes:
        return _header(self._pickle, self._buffers, self._offsets)

    def write(self, path: Path) -> None:
        """Write the file whole or not at all, unless it exists.

        Raises
        ------
        OSError
            If the folder is full or cannot be written; no part of the file is left.
        """
        if path.exists() and path.stat().st_size == self.nbytes:
            return
        with replaced_whole(path, mode=_MODE) as file:
            self.write_to(file)

    def write_to(self, file: IO[bytes]) -> None:
        """Write to an open, empty file."""
        write_parts(file, self._pickle, self._buffers)

    def to_bytes(self) -> bytes:
        """Return the content of the file."""
        file = io.BytesIO()
        self.write_to(file)
        return file.getvalue().ljust(self.nbytes, b"\0")  # empty buffers at the end


def write_parts(file: IO[bytes], pickled: bytes, buffers: Sequence[Any]) -> None:
    """Write a pickle and its buffers, which lie in memory as they are, to an empty file."""
    views = [memoryview(buffer) for buffer in buffers]
    offsets, nbytes = _place(pickled, views)
    file.truncate(nbytes)
    file.write(_header(pickled, views, offsets))
    parts: list[Any] = [pickled, *views]
    for offset, part in zip(offsets, parts, strict=True):
        file.seek(offset)
        file.write(part)


def load(path: str, *, writable: bool = False) -> Any:
    """Load a file's object; its array data stays in the mapped file, read-only.

    Parameters
    ----------
    path : str
        A bundle, or a file of one array in numpy's own format (``.npy``).
    writable : bool
        Let this process write to the data: pages that it writes to become its own; the
        file does not change.

    Raises
    ------
    OSError
        If the file is missing, or has neither format.
    """
    with Path(path).open("rb") as file:
        if file.read(len(_NPY_MAGIC)) == _NPY_MAGIC:
            return np.load(path, mmap_mode="c" if writable else "r").view(np.ndarray)
        access = mmap.ACCESS_COPY if writable else mmap.ACCESS_READ
        mapped = memoryview(mmap.mmap(file.fileno(), 0, access=access))
    if mapped[: len(_MAGIC)] != _MAGIC:
        msg = f"{path!r} is not a bundle of dask_hpsearch: the file was altered or replaced"
        raise OSError(msg)
    return _loaded(mapped)


def load_verified(source: Path | bytes, digest: str) -> Any:
    """Load a bundle once its content is found to have a digest.

    Parameters
    ----------
    source : Path or bytes
        A bundle's file, which is mapped, or its content. The object's data can be written to; the
        file does not change.
    digest : str

    Raises
    ------
    OSError
        If the file is missing, or the content is truncated or altered; then nothing of it
        is unpickled.
    """
    if isinstance(source, bytes):
        content = memoryview(bytearray(source))
    else:
        with source.open("rb") as file:
            if not source.stat().st_size:
                raise _incomplete(source)
            content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
    name = "a bundle" if isinstance(source, bytes) else source
    try:
        found = _digest_of(content)
    except (ValueError, struct.error) as error:
        raise _incomplete(name) from error
    if found != digest:
        raise _altered(name)
    return _loaded(content)


def _loaded(content: memoryview) -> Any:
    """Unpickle the object of a bundle, whose buffers stay where they are."""
    _, n_buffers, pickle_length = _HEAD.unpack_from(content)
    entries = [
        _ENTRY.unpack_from(content, _HEAD.size + index * _ENTRY.size)
        for index in range(n_buffers)
    ]
    start = _aligned(_HEAD.size + n_buffers * _ENTRY.size)
    buffers: list[Any] = [content[offset : offset + size] for offset, size in entries]
    return pickle.loads(content[start : start + pickle_length], buffers=buffers)  # noqa: S301


def release_pages(values: Iterable[Any]) -> None:
    """Let a process no longer hold the pages of mapped arrays; they stay in the file.

    The arrays remain valid: pages that are read again are mapped again. Arrays that the
    process may write to, and other values, are left alone.
    """
    for value in values:
        mapped = value
        while isinstance(mapped, np.ndarray) and mapped.base is not None:
            mapped = mapped.base
        if isinstance(mapped, memoryview):
            mapped = mapped.obj
        if isinstance(mapped, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            with memoryview(mapped) as view:
                if view.readonly:
                    mapped.madvise(mmap.MADV_DONTNEED)


def verify(path: Path, digest: str) -> None:
    """Check a bundle's content against its digest.

    Raises
    ------
    OSError
        If the file is missing, truncated or altered.
    """
    if digest_of(path) != digest:
        raise _altered(path)


def digest_of(path: Path) -> str:
    """Compute the digest of a bundle's file.

    Raises
    ------
    OSError
        If the file is missing or incomplete.
    """
    try:
        return _digest_of_file(path)
    except (ValueError, struct.error) as error:  # empty, or cut within its head
        raise _incomplete(path) from error


def _incomplete(name: Path | str) -> OSError:
    return OSError(
        f"{str(name)!r} is not a complete bundle of dask_hpsearch: it was truncated"
    )


def _altered(name: Path | str) -> OSError:
    return OSError(
        f"the content of {str(name)!r} does not match its name: the file was altered"
    )


def _digest_of_file(path: Path) -> str:
    with path.open("rb") as file:
        mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    return _digest_of(mapped)


def _digest_of(mapped: memoryview) -> str:
    magic, n_buffers, pickle_length = _HEAD.unpack_from(mapped)
    if magic != _MAGIC:
        msg = "another kind of file"
        raise ValueError(msg)
    head = _HEAD.size + n_buffers * _ENTRY.size
    content = hashlib.sha256(mapped[:head], usedforsecurity=False)
    content.update(mapped[_aligned(head) :][:pickle_length])
    for index in range(n_buffers):
        offset, size = _ENTRY.unpack_from(mapped, _HEAD.size + index * _ENTRY.size)
        content.update(mapped[offset : offset + size])
    return content.hexdigest()[:_DIGEST_LENGTH]


def _contiguous(value: Any) -> Any:
    """Give arrays a layout that pickle can store out of band."""
    if isinstance(value, np.memmap):
        value = value.view(np.ndarray)
    if type(value) is np.ndarray and not (
        value.flags.c_contiguous or value.flags.f_contiguous
    ):
        is_matrix = value.ndim <= _MATRIX_DIMENSIONS
        return np.ascontiguousarray(value) if is_matrix else _Compact(value)
    return value


class _Compact:
    """Pickles an array without gaps, and with its axes in their order in memory.

    Rows that are selected from it have that order too. Those of a matrix never do.
    """

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        self._array = array

    def __reduce__(self) -> tuple[Any, ...]:
        strides = self._array.strides
        axes = sorted(range(len(strides)), key=lambda axis: -abs(strides[axis]))
        stored = np.ascontiguousarray(self._array.transpose(axes))
        return np.transpose, (stored, tuple(map(axes.index, range(len(axes)))))


def _header(
    pickled: bytes, buffers: Sequence[memoryview], offsets: Sequence[int]
) -> bytes:
    head = _HEAD.pack(_MAGIC, len(buffers), len(pickled))
    entries = (
        _ENTRY.pack(offset, buffer.nbytes)
        for offset, buffer in zip(offsets[1:], buffers, strict=True)
    )
    return head + b"".join(entries)


def _place(pickled: bytes, buffers: list[memoryview]) -> tuple[list[int], int]:
    """Offsets of the pickle and of each buffer, and the end of the last."""
    end = _HEAD.size + len(buffers) * _ENTRY.size
    offsets = []
    for length in (len(pickled), *(buffer.nbytes for buffer in buffers)):
        offsets.append(_aligned(end))
        end = offsets[-1] + length
    return offsets, end


def _aligned(offset: int) -> int:
    return -(-offset // _ALIGNMENT) * _ALIGNMENT
