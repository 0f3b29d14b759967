"""What a benchmark case is: data, a search, and who runs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

OURS = "dask_hpsearch"
PLAIN = "plain"
N_SLOTS = 2


@dataclass(frozen=True, slots=True)
class Entry:
    """One contender in a case.

    Attributes
    ----------
    contender : str
        A name that `contenders.start` knows.
    inner_n_jobs : int
        ``n_jobs`` of the estimators inside the search.
    rare : bool
        Runs in the first rounds only, since it takes long.
    """

    contender: str
    inner_n_jobs: int = 1
    rare: bool = False

    @property
    def label(self) -> str:
        """Name in tables."""
        inner = "" if self.inner_n_jobs == 1 else f", inner n_jobs={self.inner_n_jobs}"
        return f"{self.contender}{inner}"

    @property
    def copies(self) -> int:
        """Processes to run side by side: plain ones fill the slots, as fits do."""
        return N_SLOTS if self.contender == PLAIN else 1


@dataclass(frozen=True, slots=True)
class Case:
    """One comparison.

    Attributes
    ----------
    name : str
        Name on the command line.
    title : str
        What is fitted, in a line.
    data : callable
        ``data(quick)`` returns X and y.
    search : callable
        ``search(module, quick, inner_n_jobs)`` returns a search of that module:
        scikit-learn's or dask-ml's ``model_selection``.
    entries : tuple of Entry
        The first one of ours is what the others are compared with.
    n_slots : int
        Slots, or processes, of a contender. "efficiency" refers to `N_SLOTS` in any case,
        since more of them compete for the same cores.
    """

    name: str
    title: str
    data: Callable[[bool], tuple[Any, Any]]
    search: Callable[[Any, bool, int], Any]
    entries: tuple[Entry, ...]
    n_slots: int = N_SLOTS


@dataclass(frozen=True, slots=True)
class Fit:
    """What one fitted search tells.

    Attributes
    ----------
    wall_s : float
        Time of ``fit``.
    n_fits : int
        Fits in it.
    fits_s : float
        Sum of the fits' own times, scoring included, as ``cv_results_`` has them.
    median_score : float
        Of all candidates and splits: the cases `cpu` score a fit by its CPU time.
    sent_bytes : int
        See `contenders.Contender`.
    """

    wall_s: float
    n_fits: int
    fits_s: float
    median_score: float
    sent_bytes: int
