"""Candidates as lines through parallel axes, one for each parameter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np

from dask_hpsearch.plots.parameter_scale import (
    ParameterScale,
    digits_for,
    number_text,
    round_ticks,
    short_names,
)
from dask_hpsearch.plots.search_data import Status
from dask_hpsearch.plots.sources import read_parameters
from dask_hpsearch.plots.style import (
    axes_for,
    current_look,
    key,
    outlined,
    score_label,
    short,
)
from dask_hpsearch.progress.score_limits import score_limits

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

    from dask_hpsearch.plots.search_data import BoolArray, FloatArray
    from dask_hpsearch.plots.style import Look

_MISSING_Y = -0.1  # below an axis: candidates without the parameter, or without a score
_TICKS = 5
_ROUNDING = 1e-9
_JITTER = 0.04
_LEAST_GAP = 0.05  # between ticks, as a part of the axis
_WIDEST = 13.0  # inches: a notebook shrinks a wider figure
_POINTS_PER_INCH = 72.0
_POINTS_PER_LETTER = 5.2  # of a tick's label
_POINTS_PER_HEADER_LETTER = 6.4
_LINE = 13.0  # points from a header to the one above it
_FEWEST_LETTERS = 6
_GOLDEN = 0.6180339887498949


class ParallelCoordinatesDisplay:
    """Each candidate as a line through its parameters to its score.

    Good candidates stand out; the best one is drawn on top. A line below an axis is that of
    a candidate without the parameter, or without a score. It is recommended to use
    `from_search` to create a display. A candidate of a halving search is shown with its
    last score.

    Parameters
    ----------
    values : mapping of str to list
        By parameter, the value of each candidate.
    scales : mapping of str to ParameterScale
    mean_scores : ndarray of shape (n_candidates,)
    status : sequence of Status
    score_name : str

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    """

    def __init__(
        self,
        *,
        values: Mapping[str, Sequence[Any]],
        scales: Mapping[str, ParameterScale],
        mean_scores: FloatArray,
        status: Sequence[Status],
        score_name: str,
    ) -> None:
        self.values = values
        self.scales = scales
        self.mean_scores = mean_scores
        self.status = status
        self.score_name = score_name

    @classmethod
    def from_search(
        cls,
        source: Any,
        *,
        params: Sequence[str] | None = None,
        scoring: str | None = None,
    ) -> Self:
        """Create a display of a search.

        Parameters
        ----------
        source : fitted search, DaskSearchCV, SearchRun or cv_results_
            A run may be under way, or stopped.
        params : sequence of str, optional
            Which parameters to display, from left to right; default: all that vary.
        scoring : str, optional
            Which of several scores to display; default: that of ``refit``.

        Returns
        -------
        ParallelCoordinatesDisplay
            Call `plot` to draw it.

        Raises
        ------
        ValueError
            If there is no such score or parameter.
        """
        return cls(**read_parameters(source, params, scoring))

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
        width = min(1.5 + 1.5 * (len(self.values) + 1), _WIDEST)
        ax = axes_for(ax, figsize=(width, 4.2))
        room = _points_between_axes(ax, len(self.values))
        heights = self._heights()
        low, high = score_limits(self.mean_scores)
        self._draw_lines(ax, heights, (low, high), look)
        names = short_names(list(self.values))
        longest = max(int(room / _POINTS_PER_LETTER) - 1, _FEWEST_LETTERS)
        for place, name in enumerate(self.values):
            scale = self.scales[name]
            ticks = [(at, short(label, longest)) for at, label in _ticks_of(scale)]
            _draw_axis(ax, place, ticks, look)
            missing = np.isnan(scale.positions(self.values[name])).any()
            if missing:
                _draw_tick(ax, place, _MISSING_Y, "not set", look)
        last = len(self.values)
        _draw_axis(ax, last, self._score_ticks(), look)
        headers = [short(names[name], 22) for name in self.values]
        _draw_headers(ax, [*headers, score_label(self.score_name)], room, look)
        if np.isnan(heights[:, -1]).any():
            _draw_tick(ax, last, _MISSING_Y, "no score", look)
        ax.set_axis_off()
        ax.set_xlim(-0.35, last + 0.35)
        has_missing = bool(np.isnan(heights).any())
        ax.set_ylim(_MISSING_Y - 0.06 if has_missing else -0.04, 1.04)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _score_ticks(self) -> list[tuple[float, str]]:
        """Return heights and labels of the ticks of the axis of scores."""
        known = self.mean_scores[np.isfinite(self.mean_scores)]
        if not len(known):
            return []
        low, high = score_limits(self.mean_scores)
        digits = digits_for(low, high)
        found = [
            ((one - low) / (high - low), number_text(one, digits=digits))
            for one in _round_numbers(low, high)
        ]
        if known.min() < low:
            found = [(at, label) for at, label in found if at > _LEAST_GAP]
            found.insert(0, (0.0, f"≤ {number_text(low)}"))
        return found

    def _heights(self) -> FloatArray:
        """Return where lines cross the axes, of shape (n_candidates, n_params + 1)."""
        low, high = score_limits(self.mean_scores)
        n_candidates = len(self.status)
        heights = np.full((n_candidates, len(self.values) + 1), np.nan)
        for place, (name, values) in enumerate(self.values.items()):
            scale = self.scales[name]
            units = scale.unit(scale.positions(values))
            if scale.kind == "category":
                # Lines through the same category stay apart.
                units += _JITTER * (np.arange(n_candidates) * _GOLDEN % 1 - 0.5)
            heights[:, place] = units
        failed = np.array([one == Status.FAILED for one in self.status], dtype=bool)
        scores = np.where(failed, np.nan, self.mean_scores)
        heights[:, -1] = np.clip((scores - low) / (high - low), 0.0, 1.0)
        return heights

    def _draw_lines(
        self,
        ax: Axes,
        heights: FloatArray,
        limits: tuple[float, float],
        look: Look,
    ) -> None:
        from matplotlib.collections import LineCollection

        x = np.arange(heights.shape[1], dtype=np.float64)
        lines = np.nan_to_num(heights, nan=_MISSING_Y)
        scores = heights[:, -1]
        is_of = {
            one: np.array([each == one for each in self.status], dtype=bool)
            for one in Status
        }

        def draw(chosen: BoolArray, **options: Any) -> Artist | None:
            if not chosen.any():
                return None
            paths = [np.column_stack([x, line]) for line in lines[chosen]]
            drawn = LineCollection(paths, **options)
            ax.add_collection(drawn)
            return drawn

        rows = np.flatnonzero(is_of[Status.COMPLETE] & ~np.isnan(scores))
        rows = rows[np.argsort(scores[rows], kind="stable")]
        width = float(np.clip(9.0 / np.sqrt(max(len(rows), 1)), 0.15, 1.6))
        ax.add_collection(  # good ones above bad ones
            LineCollection(
                [np.column_stack([x, lines[row]]) for row in rows],
                colors=look.ramp(0.1 + 0.8 * scores[rows]),
                linewidths=width,
                zorder=2,
            )
        )
        partial = is_of[Status.DROPPED] | is_of[Status.UNFINISHED]
        marks = [
            draw(
                is_of[one],
                colors=[look.muted],
                linewidths=1.2,
                linestyles=style,
                zorder=1.5,
                label=str(one),
            )
            for one, style in ((Status.DROPPED, ":"), (Status.UNFINISHED, "-."))
            if partial.any()
        ]
        marks.append(
            draw(
                is_of[Status.FAILED],
                colors=[look.failed],
                linewidths=1.2,
                linestyles="--",
                zorder=2.6,
                label="failed",
            )
        )
        if len(rows):
            best = rows[-1]
            (line,) = ax.plot(x, lines[best], color=look.best, linewidth=2.6, zorder=3)
            low, high = limits
            score = low + float(scores[best]) * (high - low)
            digits = digits_for(low, high)
            line.set_label(f"best {number_text(score, digits=digits)}")
            marks.insert(0, line)
        handles = [one for one in marks if one is not None]
        for handle in handles:
            handle.set_label(str(handle.get_label()))
        _key_below(ax, handles, look)


def _key_below(ax: Axes, handles: Iterable[Artist], look: Look) -> None:
    """Show what lines mean, below the axes: above them are their names."""
    del look
    key(ax, handles, obvious="")
    legend = ax.get_legend()
    if legend is not None:
        legend.set_loc("upper left")
        legend.set_bbox_to_anchor((0.0, 0.0))


def _ticks_of(scale: ParameterScale) -> list[tuple[float, str]]:
    """Return heights and labels of the ticks of an axis."""
    found = scale.tick_locator().tick_values(scale.low, scale.high)
    positions = np.array(found, dtype=np.float64)
    units = scale.unit(positions)
    inside = (units >= -_ROUNDING) & (units <= 1 + _ROUNDING)
    return [
        (float(unit), scale.label_of(float(position)))
        for unit, position in zip(units[inside], positions[inside], strict=True)
    ]


def _round_numbers(low: float, high: float) -> FloatArray:
    """Return a few round numbers of a range."""
    found = np.array(round_ticks(_TICKS).tick_values(low, high))
    return found[(found >= low) & (found <= high)]


def _draw_axis(
    ax: Axes, place: int, ticks: Iterable[tuple[float, str]], look: Look
) -> None:
    ax.plot([place, place], [0, 1], color=look.muted, linewidth=1, zorder=2.55)
    for height, label in ticks:
        _draw_tick(ax, place, height, label, look)


def _draw_tick(ax: Axes, place: int, height: float, label: str, look: Look) -> None:
    text = ax.annotate(
        label,
        (place, height),
        xytext=(4, 0),
        textcoords="offset points",
        va="center",
        fontsize="small",
        color=look.foreground,
        zorder=4,
    )
    outlined(text, look)


def _draw_headers(ax: Axes, names: Sequence[str], room: float, look: Look) -> None:
    """Write the names above the axes, in several lines if they would overlap."""
    ends: list[float] = []  # of the last name in each line
    for place, name in enumerate(names):
        half = len(name) * _POINTS_PER_HEADER_LETTER / 2
        begin = place * room - half
        lines = (line for line, end in enumerate(ends) if end < begin)
        line = next(lines, len(ends))
        ends[line : line + 1] = [begin + 2 * half]
        is_score = place == len(names) - 1
        ax.annotate(
            name,
            (place, 1.0),
            xytext=(0, 12 + line * _LINE),
            textcoords="offset points",
            ha="center",
            va="bottom",
            color=look.foreground,
            fontweight="bold" if is_score else "normal",
            annotation_clip=False,
        )


def _points_between_axes(ax: Axes, n_params: int) -> float:
    """Return about how far apart the parallel axes are."""
    inches = ax.bbox.width / ax.figure.dpi
    return float(inches) * _POINTS_PER_INCH / (n_params + 0.7)
