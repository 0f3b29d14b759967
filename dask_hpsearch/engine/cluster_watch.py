"""Watches, while tasks run, for problems that the cluster reports of its pods."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dask_hpsearch.engine.cluster_features import ClusterFeatures, Problem

_LOOK_EVERY_S = 5.0
_SHOWN_FOR_S = 300.0
_logger = logging.getLogger(__name__)


class ProblemLog:
    """The problems of a cluster, each reported once. Pure: no clock, no cluster.

    The problems of pods that had ended before the first look are not reported, except
    those of the driver's own pods.
    """

    def __init__(self) -> None:
        self._first_seen: dict[tuple[str, str], float] = {}
        self._now: list[Problem] = []
        self._looked = False

    def update(self, found: Sequence[Problem], now: float) -> list[Problem]:
        """Take in the problems that a look has found; return the new ones.

        Parameters
        ----------
        found : sequence of Problem
        now : float
            Seconds of a monotonic clock.
        """
        new = []
        for one in found:
            key = one.pod or one.message, one.reason
            if key not in self._first_seen:
                old = not self._looked and one.over and one.part != "driver"
                self._first_seen[key] = now - 2 * _SHOWN_FOR_S if old else now
                if not old:
                    new.append(one)
        self._now, self._looked = list(found), True
        return new

    def text(self, now: float) -> str:
        """Return the newest problem in words; those of ended pods count for a while."""
        seen = [
            (self._first_seen[one.pod or one.message, one.reason], one)
            for one in self._now
        ]
        shown = [
            (since, one)
            for since, one in seen
            if not one.over or now - since < _SHOWN_FOR_S
        ]
        if not shown:
            return ""
        _, newest = max(shown, key=lambda pair: pair[0])
        more = len(shown) - 1
        return newest.message + (f" (and {more} more)" if more else "")


class ClusterWatch:
    """Asks a cluster on Kubernetes for its problems now and then, in a thread.

    Parameters
    ----------
    cluster : ClusterFeatures
        Any cluster that is not on Kubernetes is not asked.
    on_problem : callable
        Called with each problem once.
    on_text : callable
        Called with the text to show, as it changes.
    """

    def __init__(
        self,
        cluster: ClusterFeatures,
        *,
        on_problem: Callable[[Problem], None],
        on_text: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._cluster = cluster
        self._on_problem = on_problem
        self._on_text = on_text
        self._problems = ProblemLog()
        self.text = ""
        self._end = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name="dask-hpsearch-problems", daemon=True
        )
        if cluster.on_kubernetes:
            self._thread.start()

    def close(self) -> None:
        """Ask no more; do not wait for an answer that is under way."""
        self._end.set()

    def _run(self) -> None:
        while not self._end.wait(_LOOK_EVERY_S):
            try:
                found = self._cluster.problems()
            except Exception as error:  # noqa: BLE001 (the search itself needs no look)
                _logger.debug("the cluster's problems are not known: %r", error)
                continue
            if not self._end.is_set():
                self._take(found)

    def _take(self, found: Sequence[Problem]) -> None:
        now = time.monotonic()
        for one in self._problems.update(found, now):
            _logger.warning("%s", one.message)
            self._on_problem(one)
        text = self._problems.text(now)
        if text != self.text:
            self.text = text
            self._on_text(text)
