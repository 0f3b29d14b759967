"""The fits of a run over time, and the slots that there were."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from dask_hpsearch.plots.search_data import Status
from dask_hpsearch.plots.sources import read_search
from dask_hpsearch.plots.style import axes_for, current_look, key, paler, tidy
from dask_hpsearch.plots.time_scale import time_unit

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

    from dask_hpsearch.plots.search_data import (
        ClusterSizes,
        FloatArray,
        IntArray,
    )
    from dask_hpsearch.plots.style import Look

_MOST_LABELS = 12
_CROWD = 3.5  # points: smaller bars touch each other
_POINTS_PER_INCH = 72.0
_LEAST_TIME = 1e-9


class TimelineDisplay:
    """The fits of a run over time, as many above each other as ran at once.

    A bar is a fit. The line above the bars is the number of slots: what is free below it
    waited for work. Marks at the top say when workers joined, when workers left, and when
    another driver continued the run.

    The journal of a run does not have all that happened, so that the display cannot know:

    - in which slot and on which worker a fit ran: a row is the first one that is free, and
      no slot of its own;
    - when a fit began: this is taken as its end (when the driver had the result) less the
      time to fit and to score. Moving data, forking a slot and waiting with Dask count as
      free time;
    - fits that were lost with their worker, or that were running when the run ended: only
      finished fits are noted;
    - whether a worker was lost or scaled away, and changes between two notes of the
      driver, which come every five seconds: a run of a few seconds has none.

    It is recommended to use `from_search` to create a display.

    Parameters
    ----------
    starts, ends : ndarray of shape (n_fits,)
        Seconds since the first fit began.
    status : sequence of Status
        Of the fits: "failed", or that of their candidate.
    sizes : ClusterSizes, optional
        Its times are in seconds since the first fit began, too.
    driver_starts : ndarray of float
        When drivers but the first began, in the same way.

    Attributes
    ----------
    rows : ndarray of shape (n_fits,)
        The row of each fit, from 0.
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    """

    def __init__(
        self,
        *,
        starts: FloatArray,
        ends: FloatArray,
        status: Sequence[Status],
        sizes: ClusterSizes | None = None,
        driver_starts: FloatArray | None = None,
    ) -> None:
        self.starts = starts
        self.ends = ends
        self.status = status
        self.sizes = sizes
        self.driver_starts = np.array([]) if driver_starts is None else driver_starts
        self.rows = rows_of(starts, ends)

    @classmethod
    def from_search(cls, source: Any) -> Self:
        """Create a display of a search.

        Parameters
        ----------
        source : SearchRun or DaskSearchCV
            A run may be under way, or stopped. A `DaskSearchCV` was fitted with
            ``backend="trials"``, and its run is still in its store.

        Returns
        -------
        TimelineDisplay
            Call `plot` to draw it.

        Raises
        ------
        ValueError
            If the source has no times of fits, or if no fit has finished.
        """
        from dask_hpsearch.plots.search_data import ClusterSizes

        data = read_search(source)
        if data.fits is None:
            msg = (
                "a timeline needs the times of fits, which a fitted scikit-learn search and "
                "cv_results_ do not have: use a SearchRun (SearchRun.attach(url)), or a "
                "DaskSearchCV with backend='trials' whose run is still in its store"
            )
            raise ValueError(msg)
        fits = data.fits
        if not len(fits.ends):
            msg = (
                "no fit of the run has finished yet: run.progress() shows when one has"
            )
            raise ValueError(msg)
        start = float(fits.starts.min())
        sizes = data.sizes
        if sizes is not None and len(sizes.times):
            sizes = ClusterSizes(
                times=sizes.times - start, workers=sizes.workers, slots=sizes.slots
            )
        else:
            sizes = None
        return cls(
            starts=fits.starts - start,
            ends=fits.ends - start,
            status=[
                Status.FAILED if failed else _of_candidate(data.status[candidate])
                for failed, candidate in zip(fits.failed, fits.candidates, strict=True)
            ],
            sizes=sizes,
            driver_starts=data.driver_starts[1:] - start,
        )

    def plot(self, ax: Axes | None = None) -> Self:
        """Draw the display.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Default: a new figure.

        Returns
        -------
        self

        Raises
        ------
        MissingExtraError
            If matplotlib is not installed.
        """
        from matplotlib.ticker import MaxNLocator

        look = current_look()
        n_rows = int(self.rows.max()) + 1
        ax = axes_for(ax, figsize=(8.0, float(np.clip(1.8 + 0.22 * n_rows, 2.6, 6.0))))
        tidy(ax, look, grid="")
        last = float(self.ends.max())
        if self.sizes is not None:
            last = max(last, float(self.sizes.times.max()))
        unit = time_unit(last)
        size = self._size_of_bars(ax, last, n_rows)
        marks = self._draw_fits(ax, unit.seconds, look, size=size)
        marks += self._draw_slots(ax, unit.seconds, last, look)
        most = (
            n_rows if self.sizes is None else max(n_rows, int(self.sizes.slots.max()))
        )
        ax.set_xlim(-0.01 * last / unit.seconds, 1.01 * last / unit.seconds)
        ax.set_ylim(0, most * 1.06 + 0.12)
        ax.yaxis.set_major_locator(MaxNLocator(6, integer=True))
        self._draw_events(ax, unit.seconds, look)
        key(ax, marks, obvious="fit")
        ax.set_xlabel(f"Time ({unit.name})")
        ax.set_ylabel("Fits at once" if self.sizes is None else "Fits and slots")
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _size_of_bars(self, ax: Axes, last: float, n_rows: int) -> tuple[float, float]:
        """Return about how wide and how high bars are, in points."""
        box, dpi = ax.bbox, ax.figure.dpi
        share = float(np.median(self.ends - self.starts)) / max(last, _LEAST_TIME)
        return (
            _POINTS_PER_INCH * float(box.width / dpi) * share,
            _POINTS_PER_INCH * float(box.height / dpi) / n_rows,
        )

    def _draw_fits(
        self, ax: Axes, second: float, look: Look, *, size: tuple[float, float]
    ) -> list[Artist]:
        """Draw the bars.

        Failed fits differ from others in more than their hue, which not all readers see:
        by a hatch, and in a crowd, which gaps and hatches would cover, by being darker.
        """
        from matplotlib.collections import PolyCollection

        left, right = self.starts / second, self.ends / second
        crowd = min(size) < _CROWD
        edge = 0.0 if crowd else 0.5
        thin = float(np.clip(0.86 - self.rows.max() / 400, 0.6, 0.86))
        thin = 1.0 if size[1] < _CROWD else thin
        below, above = self.rows + (1 - thin) / 2, self.rows + (1 + thin) / 2
        corners = np.stack(
            [
                np.column_stack([left, below]),
                np.column_stack([right, below]),
                np.column_stack([right, above]),
                np.column_stack([left, above]),
            ],
            axis=1,
        )
        marks: list[Artist] = []
        fits = paler(look.complete, look) if crowd else look.complete
        dropped = (look.muted, "none") if crowd else ("none", look.muted)
        bars_of: dict[Status, tuple[str, Any, Any, str]] = {
            Status.COMPLETE: ("fit", fits, look.background, ""),
            Status.DROPPED: ("fit of a dropped candidate", *dropped, "////"),
            Status.FAILED: ("failed fit", look.failed, look.background, "xxxx"),
        }
        for status, (label, color, edges, hatch) in bars_of.items():
            chosen = np.array([one == status for one in self.status], dtype=bool)
            if chosen.any():
                bars = PolyCollection(
                    list(corners[chosen]),
                    facecolors=color,
                    edgecolors=edges,
                    hatch=None if crowd else hatch or None,
                    linewidths=edge,
                    label=label,
                )
                ax.add_collection(bars)
                marks.append(bars)
        return marks

    def _draw_slots(
        self, ax: Axes, second: float, last: float, look: Look
    ) -> list[Artist]:
        if self.sizes is None:
            return []
        times, slots = self._slots_over_time()
        times = np.append(times, last) / second
        slots = np.append(slots, slots[-1])
        (line,) = ax.step(
            times,
            slots,
            where="post",
            color=look.foreground,
            linewidth=1.6,
            label="slots",
            zorder=3,
        )
        free = ax.fill_between(
            times,
            0,
            slots,
            step="post",
            color=look.faint,
            linewidth=0,
            zorder=0.5,
            label="free slot",
        )
        return [free, line]

    def _slots_over_time(self) -> tuple[FloatArray, IntArray]:
        """Return times at which the number of slots changed, and the numbers.

        Between two drivers nothing was noted: there were none for the run.
        """
        assert self.sizes is not None  # noqa: S101 (its caller asks)
        times, slots = self.sizes.times, self.sizes.slots
        for begin in self.driver_starts:
            before = np.concatenate(
                [times[times < begin], self.ends[self.ends < begin]]
            )
            if len(before):
                place = int(np.searchsorted(times, before.max(), side="right"))
                times = np.insert(times, place, before.max())
                slots = np.insert(slots, place, 0)
        return times, slots

    def _draw_events(self, ax: Axes, second: float, look: Look) -> None:
        """Mark when workers joined or left, and when another driver began."""
        noted: list[tuple[float, str, str]] = [
            (float(time), f"driver {place + 2}", "muted")
            for place, time in enumerate(self.driver_starts)
        ]
        if self.sizes is not None:
            changes = np.diff(self.sizes.workers)
            for place in np.flatnonzero(changes):
                change = int(changes[place])
                sign = "+" if change > 0 else "\N{MINUS SIGN}"
                text = f"{sign}{abs(change)} worker{'s' if abs(change) > 1 else ''}"
                color = "failed" if change < 0 else "complete"
                noted.append((float(self.sizes.times[place + 1]), text, color))
        if not noted:
            return
        bottom, top = ax.get_ylim()
        ax.set_ylim(bottom, top * 1.12)
        for time, _, color in noted:
            ax.axvline(
                time / second,
                color=getattr(look, color),
                linewidth=1,
                linestyle=(0, (2, 2)),
                zorder=1,
            )
        for time, text, color in _apart(noted, self.ends.max() / _MOST_LABELS):
            ax.annotate(
                text,
                (time / second, 1.0),
                xycoords=ax.get_xaxis_transform(),
                xytext=(3, -2),
                textcoords="offset points",
                va="top",
                fontsize="x-small",
                color=getattr(look, color),
            )


def rows_of(starts: FloatArray, ends: FloatArray) -> IntArray:
    """Give each fit the lowest row that is free when it begins."""
    rows = np.zeros(len(starts), dtype=np.int64)
    busy: list[tuple[float, int]] = []
    free: list[int] = []
    n_rows = 0
    for fit in np.argsort(starts, kind="stable"):
        while busy and busy[0][0] <= starts[fit]:
            heapq.heappush(free, heapq.heappop(busy)[1])
        if free:
            row = heapq.heappop(free)
        else:
            row, n_rows = n_rows, n_rows + 1
        rows[fit] = row
        heapq.heappush(busy, (float(ends[fit]), row))
    return rows


def _of_candidate(status: Status) -> Status:
    """Return how a fit is shown that did not fail."""
    return Status.DROPPED if status == Status.DROPPED else Status.COMPLETE


def _apart(
    noted: Iterable[tuple[float, str, str]], gap: float
) -> list[tuple[float, str, str]]:
    """Return what can be labelled without overlapping."""
    kept: list[tuple[float, str, str]] = []
    for one in sorted(noted):
        if not kept or one[0] - kept[-1][0] >= gap:
            kept.append(one)
    return kept
