"""Pickles tasks for the workers; large arrays go into bundles of their own."""

from __future__ import annotations

import io
from collections import ChainMap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import cloudpickle
import numpy as np

from dask_hpsearch import sklearn_adapter
from dask_hpsearch.data.collections import is_collection
from dask_hpsearch.exceptions import UnpicklableError

if TYPE_CHECKING:
    from dask_hpsearch.data import KnownObjects
    from dask_hpsearch.data.collections import Collections
    from dask_hpsearch.messages import DataRef

_SHARED_ARRAY_BYTES = 2**15


@dataclass(frozen=True, slots=True)
class BundleFile:
    """A bundle as a part of a task: in the slot it is the `Path` of the bundle's file."""

    ref: DataRef


@dataclass(frozen=True, slots=True)
class BundleValue:
    """A bundle as a part of a task: in the slot it is the object in it."""

    ref: DataRef


class TaskPickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Pickles parts of tasks: large arrays as bundles, Dask collections computed.

    Parameters
    ----------
    file : io.BytesIO
    known : KnownObjects
        Takes the arrays.
    collections : Collections
    after : TaskPickler, optional
        Its objects are not pickled again: the same unpickler loads its pickle first.

    Attributes
    ----------
    refs : dict of str to DataRef
        The bundles that loading needs, by digest, without those of ``after``.
    arrays : dict
        Numbers of the arrays by their ids, and of bundles by their digests.
    """

    memo: Any
    globals_ref: dict[int, Any]
    dispatch_table: ClassVar[Any] = ChainMap(
        sklearn_adapter.REDUCERS, cloudpickle.Pickler.dispatch_table
    )

    def __init__(
        self,
        file: io.BytesIO,
        known: KnownObjects,
        collections: Collections,
        *,
        after: TaskPickler | None = None,
    ) -> None:
        super().__init__(file, protocol=5)
        self._known = known
        self._collections = collections
        self.refs: dict[str, DataRef] = {}
        self.arrays: dict[int | str, int] = {}
        if after is not None:
            self.memo = after.memo  # a copy is made
            self.globals_ref = dict(after.globals_ref)
            self.arrays = dict(after.arrays)

    def reducer_override(self, obj: Any) -> Any:
        """Replace a Dask collection by one whose parts are computed."""
        if is_collection(obj) and (local := self._collections.local(obj)) is not obj:
            return _itself, (local,)
        return super().reducer_override(obj)

    def persistent_id(self, obj: Any) -> tuple[str, int | None] | None:
        """Return a large array's digest and number, None for anything else.

        Arrays of equal content share a bundle; their numbers keep them apart. A bundle that
        is to be a file has no number.
        """
        if type(obj) in (BundleFile, BundleValue):
            self.refs[obj.ref.digest] = obj.ref
            if type(obj) is BundleFile:
                return obj.ref.digest, None
            return obj.ref.digest, self._number_of(obj.ref.digest)
        if not isinstance(obj, np.ndarray) or obj.nbytes < _SHARED_ARRAY_BYTES:
            return None
        if type(obj) not in (np.ndarray, np.memmap) or obj.dtype.hasobject:
            return None
        ref = self._known.put(obj, what="an array")
        self.refs[ref.digest] = ref
        return ref.digest, self._number_of(id(obj))

    def _number_of(self, key: int | str) -> int:
        return self.arrays.setdefault(key, len(self.arrays))


class SharedParts:
    """The parts that several tasks share, and the part of each task, as if in one pickle.

    An object that is in the shared parts and in a task's part is one object when both are
    loaded: for example a function that the estimator and a parameter refer to.

    Parameters
    ----------
    parts : object
    known : KnownObjects
    collections : Collections

    Attributes
    ----------
    content : bytes
    refs : dict of str to DataRef
        The bundles that loading needs, by digest.

    Raises
    ------
    Exception
        As pickling raises it.
    """

    def __init__(
        self, parts: Any, known: KnownObjects, collections: Collections
    ) -> None:
        buffer = io.BytesIO()
        self._known, self._collections = known, collections
        self._pickler = TaskPickler(buffer, known, collections)
        self._pickler.dump(parts)
        self.content = buffer.getvalue()
        self.refs = self._pickler.refs

    def followed_by(self, value: Any) -> tuple[bytes, dict[str, DataRef]]:
        """Pickle a value that is loaded right after the shared parts.

        Returns
        -------
        bytes
        dict of str to DataRef
            The further bundles that it needs, by digest.

        Raises
        ------
        Exception
            As pickling raises it.
        """
        buffer = io.BytesIO()
        pickler = TaskPickler(
            buffer, self._known, self._collections, after=self._pickler
        )
        pickler.dump(value)
        return buffer.getvalue(), pickler.refs


def _itself(value: Any) -> Any:
    return value


def pickled(value: Any, what: str) -> bytes:
    """Pickle a part of the search.

    Parameters
    ----------
    value : object
    what : str
        Its name in errors.

    Raises
    ------
    UnpicklableError
        If it cannot be pickled.
    """
    try:
        return bytes(cloudpickle.dumps(value, protocol=5))
    except Exception as error:
        raise UnpicklableError.of(what, error) from error
