"""Generations of a run: a new one begins when it is extended, or goes on after a stop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dask_hpsearch.exceptions import RunFailedError, UntrustedObjectError

if TYPE_CHECKING:
    from dask_hpsearch.journal.folder import RunFolder

_EXTENSIONS = "extensions/"


def generation_of(folder: RunFolder) -> int:
    """Return the number of a run's generation; the first is 0."""
    return len(folder.store.list(_EXTENSIONS))


def begin_generation(folder: RunFolder, n_iter: int) -> int:
    """Begin a new generation, with so many candidates more; return its number.

    Raises
    ------
    RunFailedError
        If somebody else does the same.
    """
    generation = generation_of(folder) + 1
    name = f"{_EXTENSIONS}{generation:05d}"
    if not folder.store.create(name, str(n_iter).encode()):
        msg = f"run {folder.run_id} is being extended by somebody else: look again"
        raise RunFailedError(msg)
    return generation


def n_iter_more(folder: RunFolder) -> int:
    """Return how many candidates all generations have more than the first.

    Raises
    ------
    UntrustedObjectError
        If the folder does not say so in numbers.
    """
    store = folder.store
    names = [one.name for one in store.list(_EXTENSIONS)]
    try:
        return sum(int(store.read(name)) for name in names)
    except ValueError as error:
        msg = f"{_EXTENSIONS} of run {folder.run_id} holds what is no number: {error}"
        raise UntrustedObjectError(msg) from error
