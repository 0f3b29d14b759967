"""Generations of a run: a new one begins when it is extended, or resumed after a stop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dask_hpsearch.exceptions import RunFailedError, UntrustedObjectError

if TYPE_CHECKING:
    from dask_hpsearch.journal.folder import RunFolder

_EXTENSIONS = "extensions/"


def current_generation(folder: RunFolder) -> int:
    """Return the number of a run's current generation; the first is 0."""
    return len(folder.store.list(_EXTENSIONS))


def begin_generation(folder: RunFolder, n_iter: int) -> int:
    """Begin a generation with ``n_iter`` more candidates; return its number.

    Raises
    ------
    RunFailedError
        If another process has begun it.
    """
    generation = current_generation(folder) + 1
    name = f"{_EXTENSIONS}{generation:05d}"
    if not folder.store.create(name, str(n_iter).encode()):
        msg = (
            f"run {folder.run_id} is being extended by another process: try again later"
        )
        raise RunFailedError(msg)
    return generation


def n_iter_more(folder: RunFolder) -> int:
    """Return how many candidates all generations have added to the first.

    Raises
    ------
    UntrustedObjectError
        If the folder has something else than numbers.
    """
    store = folder.store
    names = [one.name for one in store.list(_EXTENSIONS)]
    try:
        return sum(int(store.read(name)) for name in names)
    except ValueError as error:
        msg = f"{_EXTENSIONS} of run {folder.run_id} must hold numbers: {error}"
        raise UntrustedObjectError(msg) from error
