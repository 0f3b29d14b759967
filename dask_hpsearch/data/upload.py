"""`upload`: write data to a store once, for many searches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dask_hpsearch import paths
from dask_hpsearch.data.collections import computed, current_client
from dask_hpsearch.data.data_store import DataStore
from dask_hpsearch.data.inputs import is_reference, n_samples
from dask_hpsearch.exceptions import UnsupportedSearchError
from dask_hpsearch.stores import open_store

if TYPE_CHECKING:
    import os

    from dask_hpsearch.data.sources import DataReference


def upload(
    X: Any,
    y: Any = None,
    *others: Any,
    store: str | os.PathLike[str] | None = None,
) -> tuple[DataReference, ...]:
    """Write data to a store once, for any number of searches.

    `DaskSearchCV.fit` and ``submit`` accept the returned references instead of the data, in
    this process or another one. The references are small, and can be pickled. Data that the
    store has already, by the hash of its content, is not written again.

    Parameters
    ----------
    X : array, sparse matrix, DataFrame or Dask collection
        A Dask collection is computed first, with the client with which it was persisted,
        else with the current one.
    y, *others : array-like or Dask collection, optional
        Targets, weights, groups.
    store : str or Path, optional
        A folder or a URL, preferably the one that the searches use. Workers read a
        ``gs://`` store themselves. Default: the user's own on this machine.

    Returns
    -------
    tuple of DataReference
        One for each given argument.

    Raises
    ------
    UnpicklableError
        If it cannot be written.
    DataTooLargeError, DataUnavailableError
        If a Dask collection does not fit into memory, or was persisted on a closed cluster.
    StoreError
        If the store cannot be written.
    UnsupportedSearchError
        If the store is in this process's memory.

    Notes
    -----
    ``dask-hpsearch gc`` removes data that no run of the store refers to.

    Examples
    --------
    The store is a folder here; ``"gs://bucket/searches"`` would be one in a bucket.

    >>> from dask_hpsearch import DaskSearchCV, upload
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.model_selection import GridSearchCV
    >>> X, y = upload(*load_iris(return_X_y=True), store="searches")
    >>> search = GridSearchCV(LogisticRegression(max_iter=500), {"C": [0.1, 1.0]})
    >>> DaskSearchCV(search, store="searches").fit(X, y).best_params_
    {'C': 1.0}
    """
    values = {"X": X} | ({} if y is None and not others else {"y": y})
    values |= {f"argument {number}": one for number, one in enumerate(others, start=3)}
    values = computed(values, current_client())
    opened = open_store(paths.data_folder() / "store" if store is None else store)
    if opened.url.startswith("memory://"):
        msg = f"the store must be a folder or a bucket, got {opened.url!r}, which ends with this process"
        raise UnsupportedSearchError(msg)
    with DataStore.of(opened) as data_store:
        return tuple(_put(data_store, what, value) for what, value in values.items())


def _put(data_store: DataStore, what: str, value: Any) -> DataReference:
    if is_reference(value):
        reference: DataReference = value
        return reference
    if isinstance(value, str):
        msg = f"{what} must be data, got {value!r}: pass a URL to fit directly; it needs no upload"
        raise UnsupportedSearchError(msg)
    return data_store.reference(
        data_store.put(value, what=what), n_samples=n_samples(value)
    )
