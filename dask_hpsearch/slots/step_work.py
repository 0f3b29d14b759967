"""Work on pipeline steps whose results are kept, described for the cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sklearn

from dask_hpsearch.sklearn_adapter import warning_filters

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from dask_hpsearch.slots.fit_watch import WarningWatch
    from dask_hpsearch.slots.snapshots import Snapshot


@dataclass(frozen=True, slots=True)
class Step:
    """An unfitted step, as far as it is known.

    Attributes
    ----------
    identity : bytes
    is_sure : bool
        Whether its parameters alone guarantee the same result each time.
    is_known_code : bool
    """

    identity: bytes
    is_sure: bool
    is_known_code: bool

    def timed_as(self, kind: type) -> tuple[Hashable, ...]:
        """Return the names that its time is known by, given its class.

        A step that runs a user's code may take longer with other parameters.
        """
        return (self.identity, kind) if self.is_sure else (self.identity,)


@dataclass(frozen=True, slots=True)
class Work:
    """Work on a step whose result may be in the cache: its fit, or a transform by it.

    Attributes
    ----------
    key : hashable
        Names the work, the step, the steps before it, and their data.
    run : callable
        Does the work; returns its result.
    watch : WarningWatch
        Watches the work.
    snapshot : callable
        Takes a snapshot of a result; None if a copy would differ.
    timed_as : tuple of hashable
        Works with one of these in common take about as long.
    rows : tuple of str
        Digests of the data of the pipeline's first step.
    waits : bool
        Whether to wait while another slot does the same work.
    least_s : float
        Work that takes less time, in seconds, is not worth keeping.
    """

    key: Hashable
    run: Callable[[], Any]
    watch: WarningWatch
    snapshot: Callable[[Any], Snapshot | None]
    timed_as: tuple[Hashable, ...]
    rows: tuple[str, ...]
    waits: bool = False
    least_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Result:
    """A result, and whether the same work would have it again."""

    value: Any
    repeatable: bool


def surroundings() -> Hashable | None:
    """Return the settings that can change the result of a step.

    They are scikit-learn's configuration, such as "transform_output", and the warning
    filters, which may turn a warning into an error. None if they have no hash.
    """
    found = tuple(sklearn.get_config().items()), warning_filters.current()
    try:
        hash(found)
    except TypeError:
        return None
    return found
