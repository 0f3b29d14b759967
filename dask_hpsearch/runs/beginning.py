"""Makes a run of a search and its data: a folder that holds all that it takes to go on."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dask_hpsearch import bundles, sklearn_adapter, trust
from dask_hpsearch.errors import DataUnavailableError
from dask_hpsearch.journal.folder import SEARCH, RunFolder
from dask_hpsearch.stores import Store, open_store
from dask_hpsearch.trials import DataRef

if TYPE_CHECKING:
    from pathlib import Path

    from dask_hpsearch.data import DataHome


@dataclass(frozen=True, slots=True)
class Work:
    """What a driver fits: a search, and what its ``fit`` takes."""

    search: Any
    X: Any
    y: Any
    params: dict[str, Any]


def default_store() -> Store:
    """Return the store of a user's runs on this machine."""
    return open_store(trust.data_folder() / "store")


def begin(
    work: Work,
    *,
    store: Store,
    home: DataHome,
    task_name: str | None,
    settings: dict[str, Any],
) -> RunFolder:
    """Write a run's data, search and manifest; the run exists once the last is there.

    Parameters
    ----------
    work : Work
    store : Store
    home : DataHome
        Where the store keeps data.
    task_name : str, optional
        A name for people.
    settings : dict
        How it is to be driven, as JSON values.

    Raises
    ------
    UnpicklableError
        If the search or its data cannot be kept.
    StoreError
        If the store cannot be written.
    """
    data = {
        "X": home.put(work.X, what="X"),
        "y": home.put(work.y, what="y"),
        "params": home.put(work.params, what="the parameters of fit"),
    }
    home.pin(work.X, data["X"])
    home.pin(work.y, data["y"])
    manifest = {
        "task_name": task_name or "",
        "search_class": type(work.search).__name__,
        "search_text": repr(work.search)[:2000],
        "data": {
            name: {"digest": ref.digest, "nbytes": ref.nbytes}
            for name, ref in data.items()
        },
        "settings": settings,
        "traits": {
            "refit": refit if isinstance(refit := work.search.refit, str) else None,
            "extendable": hasattr(work.search, "n_iter"),
        },
    }
    return RunFolder.create(store, manifest, work.search)


def load(folder: RunFolder, home: DataHome) -> Work:
    """Load a run's search and data, checked against its manifest.

    Raises
    ------
    DataUnavailableError
        If a part of the data is gone or was altered.
    """
    search = folder.load_pickle(SEARCH)
    values = {name: _load_data(name, pin, home) for name, pin in _data(folder).items()}
    return Work(search, values["X"], values["y"], values["params"])


def _data(folder: RunFolder) -> dict[str, dict[str, Any]]:
    return folder.manifest.data


def _load_data(name: str, pin: dict[str, Any], home: DataHome) -> Any:
    path: Path = home.folder() / pin["digest"]
    try:
        bundles.verify(path, pin["digest"])
        os.utime(path)  # in use, for those who tidy up
    except OSError as error:
        msg = (
            f"the run's data {name!r} is gone or was altered: {error}. Put the file back, "
            "or begin a new run"
        )
        raise DataUnavailableError(msg) from error
    value = bundles.load(str(path), writable=True)
    home.pin(value, DataRef(pin["digest"], pin["nbytes"], str(path)))
    return value


def materialised(search: Any) -> tuple[Any, Any]:
    """Give a search that iterates over splits a list of them: an iterator has no copy.

    Returns
    -------
    search : object
        A copy without fitted state.
    cv : object
        The ``cv`` it came with.
    """
    fresh = sklearn_adapter.without_fitted_state(search)
    cv: Any = getattr(fresh, "cv", None)
    if hasattr(cv, "__next__"):
        fresh.cv = list(cv)
    return fresh, cv
