"""Looks, while tasks run, at what the cluster says is wrong with its own parts."""

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
    """What is wrong with a cluster, each thing told once: no clock, no cluster.

    What has ended before the first look is no news, unless it is the driver's own.
    """

    def __init__(self) -> None:
        self._first_seen: dict[tuple[str, str], float] = {}
        self._now: list[Problem] = []
        self._looked = False

    def update(self, found: Sequence[Problem], now: float) -> list[Problem]:
        """Take in what a look has found; return what is new.

        Parameters
        ----------
        found : sequence of Problem
        now : float
            Seconds that never run backwards.
        """
        news = []
        for one in found:
            key = one.pod or one.message, one.reason
            if key not in self._first_seen:
                old = not self._looked and one.over and one.part != "driver"
                self._first_seen[key] = now - 2 * _SHOWN_FOR_S if old else now
                if not old:
                    news.append(one)
        self._now, self._looked = list(found), True
        return news

    def text(self, now: float) -> str:
        """Say what is in the way, what came last first; of what has ended, for a while."""
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
    """Asks a cluster on Kubernetes now and then, in a thread of its own, what is wrong.

    Parameters
    ----------
    cluster : ClusterFeatures
        Any other is left alone.
    on_news : callable
        Given each problem once.
    on_text : callable
        Given what to show of them, as it changes.
    """

    def __init__(
        self,
        cluster: ClusterFeatures,
        *,
        on_news: Callable[[Problem], None],
        on_text: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._cluster = cluster
        self._on_news = on_news
        self._on_text = on_text
        self._book = ProblemLog()
        self.text = ""
        self._end = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name="dask-hpsearch-problems", daemon=True
        )
        if cluster.on_kubernetes:
            self._thread.start()

    def close(self) -> None:
        """Ask no more; an answer that is late is not waited for."""
        self._end.set()

    def _run(self) -> None:
        while not self._end.wait(_LOOK_EVERY_S):
            try:
                found = self._cluster.problems()
            except Exception as error:  # noqa: BLE001 (the search itself needs no look)
                _logger.debug("the cluster does not say how it is: %r", error)
                continue
            if not self._end.is_set():
                self._take(found)

    def _take(self, found: Sequence[Problem]) -> None:
        now = time.monotonic()
        for one in self._book.update(found, now):
            _logger.warning("%s", one.message)
            self._on_news(one)
        text = self._book.text(now)
        if text != self.text:
            self.text = text
            self._on_text(text)
