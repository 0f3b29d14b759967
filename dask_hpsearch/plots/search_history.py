"""The scores of a search's candidates over time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from dask_hpsearch.plots.parameter_scale import digits_for, number_text, round_ticks
from dask_hpsearch.plots.search_data import Status
from dask_hpsearch.plots.sources import read_search
from dask_hpsearch.plots.style import (
    axes_for,
    current_look,
    draw_candidates,
    key,
    outlined,
    plain_numbers,
    ring,
    score_label,
    tidy,
)
from dask_hpsearch.plots.time_scale import time_unit
from dask_hpsearch.progress.score_limits import score_limits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from dask_hpsearch.plots.search_data import FloatArray, IntArray, SearchData
    from dask_hpsearch.plots.style import Look

_CROWD = 200  # candidates
_TICKS = 8


class SearchHistoryDisplay:
    """The score of each candidate over time, and the best so far.

    It is recommended to use `from_search` to create a display.

    Parameters
    ----------
    x : ndarray of shape (n_candidates,)
        Seconds since the first fit began, or numbers of candidates.
    mean_scores : ndarray of shape (n_candidates,)
    status : sequence of Status
    rungs, resources : ndarray of shape (n_candidates,)
        Of a halving search; zeros otherwise.
    score_name : str
    by : {"time", "candidate"}
        What ``x`` means.

    Attributes
    ----------
    best_so_far : ndarray of shape (n_candidates,)
        The best mean score of complete candidates up to ``x``, in the order of ``x``. It
        begins anew in each rung of a halving search, since the scores of two rungs do not
        compare.
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    """

    def __init__(
        self,
        *,
        x: FloatArray,
        mean_scores: FloatArray,
        status: Sequence[Status],
        rungs: IntArray,
        resources: IntArray,
        score_name: str,
        by: Literal["time", "candidate"],
    ) -> None:
        order = np.lexsort((x, rungs))
        self.x = x[order]
        self.mean_scores = mean_scores[order]
        self.status = [status[row] for row in order]
        self.rungs = rungs[order]
        self.resources = resources[order]
        self.score_name = score_name
        self.by = by
        self.best_so_far = _best_so_far(self.mean_scores, self.status, self.rungs)

    @classmethod
    def from_search(
        cls,
        source: Any,
        *,
        scoring: str | None = None,
        by: Literal["time", "candidate"] | None = None,
    ) -> Self:
        """Create a display of a search.

        Parameters
        ----------
        source : fitted search, DaskSearchCV, SearchRun or cv_results_
            A run may be under way, or stopped.
        scoring : str, optional
            Which of several scores to display; default: that of ``refit``.
        by : {"time", "candidate"}, optional
            What to display the scores over; default: time, if the source has it.

        Returns
        -------
        SearchHistoryDisplay
            Call `plot` to draw it.

        Raises
        ------
        ValueError
            If there is no such score, or ``by="time"`` and the source has no times.
        """
        data = read_search(source)
        name = data.score_name(scoring)
        has_times = len(data) > 0 and not np.isnan(data.ends).any()
        if by is None:
            by = "time" if has_times else "candidate"
        if by not in {"time", "candidate"}:
            msg = f"by must be 'time' or 'candidate', got {by!r}"
            raise ValueError(msg)
        if by == "time" and not has_times:
            msg = (
                "by='time' needs the times of fits, which cv_results_ does not have: use a "
                "SearchRun, or a DaskSearchCV whose run is still in its store"
            )
            raise ValueError(msg)
        return cls(
            x=_seconds(data) if by == "time" else _numbers(len(data)),
            mean_scores=data.mean_scores[name],
            status=data.status,
            rungs=data.rungs,
            resources=data.resources,
            score_name=name,
            by=by,
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
        look = current_look()
        ax = axes_for(ax, figsize=(7.0, 4.0))
        tidy(ax, look)
        plain_numbers(ax.yaxis)
        x, label = self.x, "Candidate"
        if self.by == "time":
            unit = time_unit(float(x.max(initial=0.0)))
            x, label = x / unit.seconds, f"Time ({unit.name})"
        elif len(x) > 1:
            ax.xaxis.set_major_locator(round_ticks(_TICKS, whole=True))
        else:
            ax.set_xticks(x)
        limits = score_limits(self.mean_scores)
        marks = draw_candidates(
            ax, x, self.mean_scores, self.status, look, limits=limits
        )
        span = float(np.ptp(x)) if len(x) else 1.0
        ends = float(x.min(initial=1.0)), float(x.max(initial=1.0))
        ax.set_xlim(ends[0] - (0.03 * span or 0.5), ends[1] + (0.03 * span or 0.5))
        self._draw_best(ax, x, look)
        self._draw_rungs(ax, x, look)
        key(ax, marks)
        ax.set_xlabel(label)
        ax.set_ylabel(score_label(self.score_name))
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _draw_best(self, ax: Axes, x: FloatArray, look: Look) -> None:
        """Draw the best so far, and name the best of the last rung that has one."""
        for rung in np.unique(self.rungs):
            chosen = (self.rungs == rung) & np.isfinite(self.best_so_far)
            if not chosen.any():
                continue
            ax.step(
                x[chosen],
                self.best_so_far[chosen],
                where="post",
                color=look.best,
                linewidth=1.8,
                # Below single points, which stay legible; above a crowd of them.
                zorder=2.7 if len(x) < _CROWD else 3.2,
            )
        known = np.isfinite(self.best_so_far)
        if not known.any():
            return
        limits = score_limits(self.mean_scores)
        last = self.rungs == self.rungs[known].max()
        best = float(np.nanmax(self.best_so_far[last]))
        row = int(np.flatnonzero(last & (self.best_so_far == best))[0])
        ring(ax, float(x[row]), best, look)
        on_right = x[row] > x.min() + 0.6 * float(np.ptp(x))
        text = ax.annotate(
            f"best {number_text(best, digits=digits_for(*limits))}",
            (float(x[row]), best),
            xytext=(-4 if on_right else 4, 7),
            textcoords="offset points",
            ha="right" if on_right else "left",
            va="bottom",
            color=look.foreground,
            fontsize="small",
            fontweight="bold",
        )
        outlined(text, look)

    def _draw_rungs(self, ax: Axes, x: FloatArray, look: Look) -> None:
        """Separate the rungs of a halving search."""
        rungs = np.unique(self.rungs)
        if len(rungs) < 2:  # noqa: PLR2004 (one needs no line)
            return
        low, high = ax.get_ylim()
        ax.set_ylim(low, high + 0.1 * (high - low))
        starts = [float(x[self.rungs == rung].min()) for rung in rungs]
        ends = [float(x[self.rungs == rung].max()) for rung in rungs]
        for place, rung in enumerate(rungs):
            edge = ax.get_xlim()[0]
            if place:
                edge = (ends[place - 1] + starts[place]) / 2
                ax.axvline(edge, color=look.muted, linewidth=0.8, zorder=1)
            resources = int(self.resources[self.rungs == rung].max())
            ax.annotate(
                f"rung {rung}\n{'' if place else 'n_resources='}{resources}",
                (edge, 1.0),
                xycoords=ax.get_xaxis_transform(),
                xytext=(3, -2),
                textcoords="offset points",
                va="top",
                color=look.muted,
                fontsize="x-small",
            )


def _numbers(n_candidates: int) -> FloatArray:
    return np.arange(1, n_candidates + 1, dtype=np.float64)


def _seconds(data: SearchData) -> FloatArray:
    """Return when candidates ended, in seconds since the first fit began."""
    start = data.ends.min() if data.fits is None else data.fits.starts.min()
    seconds: FloatArray = data.ends - start
    return seconds


def _best_so_far(
    scores: FloatArray, status: Sequence[Status], rungs: IntArray
) -> FloatArray:
    complete = np.array([one == Status.COMPLETE for one in status], dtype=bool)
    values = np.where(complete, scores, np.nan)
    best = np.full(len(values), np.nan)
    for rung in np.unique(rungs):
        chosen = rungs == rung
        best[chosen] = np.fmax.accumulate(values[chosen])
    return best
