"""Creates a run from a search and its data, and loads them in the driver."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dask_hpsearch import sklearn_adapter
from dask_hpsearch.data import remote_files
from dask_hpsearch.data.inputs import FitData, check_values, is_reference
from dask_hpsearch.data.prefetch import EarlyUpload
from dask_hpsearch.data.sources import DataReference, Source
from dask_hpsearch.journal.folder import SEARCH, RunFolder
from dask_hpsearch.safe_text import repr_of

if TYPE_CHECKING:
    from dask_hpsearch.data import DataStore
    from dask_hpsearch.data.sources import Reference
    from dask_hpsearch.stores import Store

# The manifest's name for the other arguments of fit, without references.
PARAMS = "params"
_LONGEST_TEXT = 2000


@dataclass(frozen=True, slots=True)
class Work:
    """A search and the arguments of its ``fit``."""

    search: Any
    X: Any
    y: Any
    params: dict[str, Any]


def create_run(
    work: Work,
    *,
    store: Store,
    data_store: DataStore,
    task_name: str | None,
    settings: dict[str, Any],
    cache_search: bool = False,
) -> RunFolder:
    """Write a run's data, search and manifest; the run exists once the last is written.

    Parameters
    ----------
    work : Work
    store : Store
    data_store : DataStore
        Of the same store.
    task_name : str, optional
    settings : dict
        Of the driver, as JSON values.
    cache_search : bool
        As for `RunFolder.create`.

    Raises
    ------
    UnpicklableError
        If the search or its data cannot be pickled.
    StoreError
        If the store cannot be written.
    """
    named = _named(work)
    with closing(EarlyUpload(data_store)) as upload:
        smaller = [one for name, one in named.items() if name != "X"]
        upload([one for one in smaller if not is_reference(one)], what="data")
        data = {name: _stored(value, name, data_store) for name, value in named.items()}
    refit = getattr(work.search, "refit", None)
    manifest = {
        "task_name": task_name or "",
        "search_class": type(work.search).__name__,
        "search_text": repr_of(work.search, _LONGEST_TEXT),
        "data": data,
        "settings": settings,
        "traits": {
            "refit": refit if isinstance(refit, str) else None,
            "extendable": hasattr(work.search, "n_iter")
            and not _has_numbers_by_space(work.search),
        },
    }
    return RunFolder.create(store, manifest, work.search, cache_search=cache_search)


def _has_numbers_by_space(search: Any) -> bool:
    """Whether a Bayes search has a number of candidates for each of its spaces."""
    spaces = getattr(search, "search_spaces", None)
    return isinstance(spaces, list) and any(isinstance(one, tuple) for one in spaces)


def load_work(folder: RunFolder, data_store: DataStore) -> Work:
    """Load a run's search and data, checked against its manifest.

    Raises
    ------
    DataUnavailableError
        If a part of the data is missing or was altered.
    DataChangedError
        If data at a URL have changed since the run was created.
    """
    search = folder.load_pickle(SEARCH)
    found = {
        name: _reference(pin, data_store) for name, pin in folder.manifest.data.items()
    }
    for one in found.values():
        if isinstance(one, Source):  # this node may still have the old version
            remote_files.check_all_unchanged(one.objects)
    params = data_store.open(found.pop(PARAMS), what=PARAMS)
    X, y = found.pop("X"), found.pop("y")
    return read_references(Work(search, X, y, params | found), data_store)


def read_references(work: Work, data_store: DataStore) -> Work:
    """Read the arguments of ``fit`` that are references.

    Raises
    ------
    DataFormatError
        If their lengths differ.
    HPSearchError
        If they cannot be read, or have changed.
    """
    data = FitData(work.X, work.y, work.params)
    if not any(map(is_reference, data.named().values())):
        return work
    values = {
        name: data_store.open(value, what=name) if is_reference(value) else value
        for name, value in data.named().items()
    }
    check_values(values, data)
    return Work(work.search, values.pop("X"), values.pop("y"), values)


def _named(work: Work) -> dict[str, Any]:
    """Return data by its name in the manifest; each reference has its own name."""
    alone = {name: one for name, one in work.params.items() if is_reference(one)}
    rest = {name: one for name, one in work.params.items() if name not in alone}
    return {"X": work.X, "y": work.y, PARAMS: rest} | alone


def _stored(value: Any, name: str, data_store: DataStore) -> dict[str, Any]:
    """Put data into the data store unless it is a reference; return the manifest's entry."""
    if isinstance(value, Source):
        return {"source": value.to_json()}
    if isinstance(value, DataReference):
        return {"uploaded": value.to_json(), "digest": value.digest}
    what = "the parameters of fit" if name == PARAMS else name
    ref = data_store.put(value, what=what)
    if name != PARAMS:
        data_store.pin(value, ref)
    return {"digest": ref.digest, "nbytes": ref.nbytes}


def _reference(pin: dict[str, Any], data_store: DataStore) -> Reference:
    if "source" in pin:
        return Source.from_json(pin["source"])
    if "uploaded" in pin:
        return DataReference.from_json(pin["uploaded"])
    return data_store.own(pin["digest"], pin["nbytes"])


def copy_with_cv_list(search: Any) -> tuple[Any, Any]:
    """Return a copy of a search whose ``cv`` is a list if it was an iterator.

    Returns
    -------
    search : object
        Without fitted state.
    cv : object
        The ``cv`` of the copy before that.
    """
    fresh = sklearn_adapter.without_fitted_state(search)
    cv: Any = getattr(fresh, "cv", None)
    if hasattr(cv, "__next__"):
        fresh.cv = list(cv)
    return fresh, cv
