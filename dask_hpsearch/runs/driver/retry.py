"""Which errors of a driver may pass by themselves, and how long it tries again."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from dask_hpsearch.exceptions import (
    ClientClosedError,
    ClusterNotFoundError,
    ClusterUnreachableError,
    KubernetesUnreachableError,
    NoWorkersError,
    PodStartError,
    SearchStopped,
    StoreError,
)
from dask_hpsearch.journal.run_state import RunState

if TYPE_CHECKING:
    from collections.abc import Callable

EndState = Literal[RunState.INTERRUPTED, RunState.FAILED]
PAUSE_S = 2.0
# How long errors may follow each other; an attempt without one for a while begins anew.
_DEADLINE_S = 3600.0
_CALM_S = 300.0
_TRANSIENT = (
    ClientClosedError,
    ClusterUnreachableError,
    KubernetesUnreachableError,
    NoWorkersError,
    PodStartError,  # of the next scheduler
)


class PodTerminated(BaseException):
    """Kubernetes terminates the pod."""


@dataclass(slots=True)
class Retry:
    """Decides whether a driver tries again after an error.

    Attributes
    ----------
    has_cluster : callable
        Whether there is still a cluster to wait for.
    """

    has_cluster: Callable[[], bool]
    _failing_since: float | None = field(default=None, init=False)

    def attempt_lasted(self, seconds: float) -> None:
        """Forget earlier errors if an attempt was long enough."""
        if seconds > _CALM_S:
            self._failing_since = None

    def will_retry(self, error: BaseException) -> bool:
        """Whether the driver, or the one in the next pod, tries again."""
        return isinstance(error, PodTerminated) or self.end_state(error) is None

    def end_state(self, error: BaseException) -> EndState | None:
        """Return the state in which an error leaves the run; None to try again."""
        if isinstance(error, ClusterNotFoundError | SearchStopped):
            return RunState.INTERRUPTED
        if not is_transient(error):
            return RunState.FAILED
        if getattr(error, "lasts", False):
            return RunState.INTERRUPTED
        now = time.monotonic()
        self._failing_since = self._failing_since or now
        too_long = now - self._failing_since > _DEADLINE_S
        return RunState.INTERRUPTED if too_long or not self.has_cluster() else None


def is_transient(error: BaseException) -> bool:
    """Whether an error may pass without the user.

    Subclasses of `StoreError` (a permission, a full disk, a missing bucket) do not.
    """
    return isinstance(error, _TRANSIENT) or type(error) is StoreError
