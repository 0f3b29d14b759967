"""The scores of the best candidates on each split."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np

from dask_hpsearch.plots.parameter_scale import (
    category_of,
    number_text,
    round_ticks,
    short_names,
)
from dask_hpsearch.plots.search_data import Status
from dask_hpsearch.plots.sources import read_search
from dask_hpsearch.plots.style import (
    SPLIT_MARKERS,
    axes_for,
    current_look,
    key,
    plain_numbers,
    score_label,
    short,
    tidy,
)
from dask_hpsearch.progress.score_limits import score_limits

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

    from dask_hpsearch.plots.search_data import FloatArray, SearchData
    from dask_hpsearch.plots.style import Look

_POINTS_PER_INCH = 72.0
_POINTS_PER_LETTER = 5.3
_GAP = 12.0  # points between columns
_WIDEST = 330.0  # points
_LONGEST_NAME = 16
_TICKS = 6


class SplitScoresDisplay:
    """The best candidates with their scores on each split.

    One row a candidate, the best above: a mark for each split, the range, and the mean. It
    shows whether the best candidate is ahead on all splits, and which splits are hard for
    all. It is recommended to use `from_search` to create a display.

    Parameters
    ----------
    split_scores : ndarray of shape (n_candidates, n_splits)
        NaN where there is no score.
    mean_scores : ndarray of shape (n_candidates,)
        In descending order; NaN last.
    status : sequence of Status
    columns : mapping of str to list of str
        What to show of each candidate: its parameters, by their names.
    score_name : str
    n_others : int
        Number of candidates that are not displayed.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    """

    def __init__(
        self,
        *,
        split_scores: FloatArray,
        mean_scores: FloatArray,
        status: Sequence[Status],
        columns: Mapping[str, Sequence[str]],
        score_name: str,
        n_others: int = 0,
    ) -> None:
        self.split_scores = split_scores
        self.mean_scores = mean_scores
        self.status = status
        self.columns = columns
        self.score_name = score_name
        self.n_others = n_others

    @classmethod
    def from_search(
        cls,
        source: Any,
        *,
        n_candidates: int = 12,
        params: Sequence[str] | None = None,
        scoring: str | None = None,
    ) -> Self:
        """Create a display of a search.

        Of a halving search, the candidates of the last rung come first.

        Parameters
        ----------
        source : fitted search, DaskSearchCV, SearchRun or cv_results_
            A run may be under way, or stopped.
        n_candidates : int
            How many candidates to display.
        params : sequence of str, optional
            Which parameters to show; default: those that vary, as far as there is room.
        scoring : str, optional
            Which of several scores to display; default: that of ``refit``.

        Returns
        -------
        SplitScoresDisplay
            Call `plot` to draw it.

        Raises
        ------
        ValueError
            If there is no such score or parameter, or ``n_candidates`` is not positive.
        """
        if n_candidates < 1:
            msg = f"n_candidates must be a positive integer, got {n_candidates!r}"
            raise ValueError(msg)
        data = read_search(source)
        name = data.score_name(scoring)
        means = data.mean_scores[name]
        rows = data.last_rung_rows()
        ranks = np.array([list(Status).index(one) for one in data.status])
        # Complete before others: a mean over fewer splits does not compare.
        partial = ranks[rows] != list(Status).index(Status.COMPLETE)
        scores = np.nan_to_num(means[rows], nan=-np.inf)
        rows = rows[np.lexsort((-scores, partial, -data.rungs[rows]))]
        shown = rows[:n_candidates]
        return cls(
            split_scores=data.split_scores[name][shown],
            mean_scores=means[shown],
            status=[data.status[row] for row in shown],
            columns=_columns(data, shown, params),
            score_name=name,
            n_others=len(rows) - len(shown),
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
        n_candidates = len(self.split_scores)
        offsets, width = _layout(self.columns)
        ax = axes_for(
            ax, figsize=(5.2 + width / _POINTS_PER_INCH, 1.5 + 0.34 * n_candidates)
        )
        tidy(ax, look, grid="x")
        low, high = score_limits(self.split_scores.ravel())
        room = high - low
        ax.set_xlim(low - 0.06 * room, high + 0.06 * room)
        plain_numbers(ax.xaxis)
        ax.xaxis.set_major_locator(round_ticks(_TICKS))
        if not np.isfinite(self.split_scores).any():
            ax.set_xticks([])  # there is no scale without a score
        self._draw_ranges(ax, low, look)
        marks = self._draw_splits(ax, low, look)
        marks += self._draw_below(ax, low - 0.035 * room, low, look)
        if np.isfinite(self.split_scores).any():
            key(ax, marks)
        ax.set_yticks([])
        self._draw_columns(ax, offsets, look)
        ax.set_ylim(n_candidates - 0.4, -0.6)
        ax.spines["left"].set_visible(False)
        ax.set_xlabel(
            score_label(self.score_name, mean=False)
            + _not_shown(self.n_others, len(self.columns) - len(offsets))
        )
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _draw_splits(self, ax: Axes, low: float, look: Look) -> list[Artist]:
        """Draw the scores on each split and their mean; return the key's marks."""
        n_candidates, n_splits = self.split_scores.shape
        y = np.arange(n_candidates)
        marks: list[Artist] = []
        few = n_splits <= len(SPLIT_MARKERS)
        for split in range(n_splits):
            scores = self.split_scores[:, split]
            drawn = ax.scatter(
                np.where(scores < low, np.nan, scores),
                y,
                s=30,
                color=look.splits[split] if few else look.complete,
                marker=SPLIT_MARKERS[split] if few else "o",
                alpha=0.9 if few else 0.6,
                linewidths=0,
                zorder=3,
                label=f"split {split}" if few else f"{n_splits} splits",
            )
            marks.append(drawn)
        mean = ax.scatter(
            np.where(self.mean_scores < low, np.nan, self.mean_scores),
            y,
            s=150,
            marker="|",
            color=look.foreground,
            linewidths=2.2,
            zorder=4,
            label="mean",
        )
        return [*(marks if few else marks[:1]), mean]

    def _draw_below(
        self, ax: Axes, edge: float, low: float, look: Look
    ) -> list[Artist]:
        """Mark scores below the axis at its edge, in the colours of their splits."""
        rows, splits = np.nonzero(self.split_scores < low)
        if not len(rows):
            return []
        few = self.split_scores.shape[1] <= len(SPLIT_MARKERS)
        colors = [look.splits[one] if few else look.complete for one in splits]
        ax.scatter(
            np.full(len(rows), edge),
            rows,
            s=42,
            marker="<",
            color=colors,
            linewidths=0,
            zorder=3,
        )
        label = f"below {number_text(low)}"
        return [
            ax.scatter(
                [], [], s=42, marker="<", color=look.muted, linewidths=0, label=label
            )
        ]

    def _draw_columns(self, ax: Axes, offsets: Sequence[float], look: Look) -> None:
        """Write a table beside the axes: names of parameters, and their values below."""
        first_is_best = bool(len(self.status)) and self.status[0] == Status.COMPLETE
        for offset, (name, texts) in zip(offsets, self.columns.items(), strict=False):
            for row, text in enumerate([name, *texts]):
                is_best = row == 1 and first_is_best
                ax.annotate(
                    text,
                    (0.0, row - 1 if row else -0.6),
                    xycoords=ax.get_yaxis_transform(),
                    xytext=(offset, 0 if row else 3),
                    textcoords="offset points",
                    ha="right",
                    va="center" if row else "bottom",
                    fontsize="small",
                    fontweight="bold" if is_best else "normal",
                    color=look.foreground if row else look.muted,
                    annotation_clip=False,
                )

    def _draw_ranges(self, ax: Axes, low: float, look: Look) -> None:
        """Draw the range of each candidate's scores, and the word for what it lacks."""
        for row, (scores, status) in enumerate(
            zip(self.split_scores, self.status, strict=True)
        ):
            known = np.clip(scores[np.isfinite(scores)], low, None)
            if len(known):
                ax.hlines(
                    row,
                    known.min(),
                    known.max(),
                    color=look.muted,
                    linewidth=1,
                    zorder=2,
                )
            if status != Status.COMPLETE:
                ax.annotate(
                    str(status),
                    (1.0, row),
                    xycoords=ax.get_yaxis_transform(),
                    xytext=(4, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize="small",
                    color=look.failed if status == Status.FAILED else look.muted,
                    annotation_clip=False,
                )


def _not_shown(n_candidates: int, n_params: int) -> str:
    """Return a note of what the display leaves out."""
    parts = [
        f"{number:,} more {noun}{'s' if number > 1 else ''}"
        for number, noun in ((n_candidates, "candidate"), (n_params, "parameter"))
        if number
    ]
    return f"   ({' and '.join(parts)} not shown)" if parts else ""


def _columns(
    data: SearchData, rows: Sequence[int] | Any, params: Sequence[str] | None
) -> dict[str, list[str]]:
    """Return the texts of the table, by column."""
    names = data.choose_parameters(params) if params else data.varied_parameters()
    shorter = short_names(names)
    columns = {}
    if data.rungs.any():
        columns["rung"] = [str(data.rungs[row]) for row in rows]
    for name in names:
        values = data.values_of(name)
        columns[short(shorter[name], _LONGEST_NAME)] = [
            category_of(values[row]) for row in rows
        ]
    return columns


def _layout(columns: Mapping[str, Sequence[str]]) -> tuple[list[float], float]:
    """Return where columns end, in points from the axes, and their width together.

    Those that do not fit are left out.
    """
    widths: list[float] = []
    for name, texts in columns.items():
        width = _GAP + _POINTS_PER_LETTER * max(map(len, [name, *texts]))
        if widths and sum(widths) + width > _WIDEST:
            break
        widths.append(width)
    ends = np.cumsum(widths) - sum(widths) - _GAP
    return [float(one) for one in ends], sum(widths)
