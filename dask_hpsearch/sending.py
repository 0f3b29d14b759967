"""How tasks are pickled for the way to the workers: small parts, large arrays apart."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import cloudpickle
import numpy as np

from dask_hpsearch.data.collections import is_collection
from dask_hpsearch.errors import UnpicklableError

if TYPE_CHECKING:
    import io

    from dask_hpsearch.data import KnownObjects
    from dask_hpsearch.data.collections import Collections
    from dask_hpsearch.trials import DataRef

_SHARED_ARRAY_BYTES = 2**15
# joblib's own backends map larger arrays read-only, and hand smaller ones over as copies.
_READ_ONLY_BYTES = 2**20


class CallPickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Pickles calls, large arrays as references to bundles, collections computed."""

    def __init__(
        self,
        file: io.BytesIO,
        known: KnownObjects,
        refs: dict[str, DataRef],
        collections: Collections,
    ) -> None:
        super().__init__(file, protocol=5)
        self._known = known
        self._refs = refs
        self._collections = collections

    def reducer_override(self, obj: Any) -> Any:
        """Replace a Dask collection by one whose parts are there, in bundles."""
        if is_collection(obj) and (local := self._collections.local(obj)) is not obj:
            return _the_same, (local,)
        return super().reducer_override(obj)

    def persistent_id(self, obj: Any) -> tuple[str, bool] | None:
        """Return digest and writability for a large array, None for anything else."""
        if not isinstance(obj, np.ndarray) or obj.nbytes < _SHARED_ARRAY_BYTES:
            return None
        if type(obj) not in (np.ndarray, np.memmap) or obj.dtype.hasobject:
            return None
        ref = self._known.put(obj, what="an array")
        self._refs[ref.digest] = ref
        return ref.digest, obj.nbytes < _READ_ONLY_BYTES


def _the_same(value: Any) -> Any:
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


def check_pickles(value: Any, name: str) -> bytes:
    """Name the part that does not pickle; arrays always do.

    Returns
    -------
    bytes
        The pickle, without the data of arrays.
    """
    try:
        return pickle.dumps(value, protocol=5, buffer_callback=lambda _: None)
    except Exception:  # noqa: BLE001 (cloudpickle may know better, or name it)
        return pickled(value, name)
