"""The look that the displays share: colours, axes, marks and the key above them.

Foreground and background come from matplotlib's settings, so that its styles work. The
other colours are those of Okabe and Ito, which colour-blind readers tell apart; each mark
differs by its shape too. (https://jfly.uni-koeln.de/color/)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dask_hpsearch.extras import map_import_errors
from dask_hpsearch.plots.search_data import Status

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.colors import Colormap

    from dask_hpsearch.plots.search_data import FloatArray

    Color = tuple[float, float, float]

_LIGHT = {"complete": "#0072B2", "best": "#D55E00", "failed": "#A6428A"}
_DARK = {"complete": "#56B4E9", "best": "#E69F00", "failed": "#E08CBF"}
_RAMP_LIGHT = ("#D3E4F0", "#6BAED6", "#0072B2", "#08264D")
_RAMP_DARK = ("#22384A", "#2E7CAB", "#56B4E9", "#E8F6FF")
# On black, Okabe and Ito's dark blue is faint, and their yellow is not.
_SPLITS_LIGHT = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
_SPLITS_DARK = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#F0E442", "#D55E00")
SPLIT_MARKERS = ("o", "s", "^", "D", "v", "P")
_STRIP = 0.035  # height of marks of candidates without a place, as a part of the axes
_LONGEST_LABEL = 40
_KEY_HEIGHT = 0.07
_KEY_SIZE = 18.0  # of marks, at least: those of a crowd are too small to recognize
_MANY = 200  # candidates; more have smaller marks


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """The colours of a figure.

    Attributes
    ----------
    complete, best, failed, muted, faint, foreground, background : color
    splits : tuple of color
        As many as there are `SPLIT_MARKERS`.
    ramp : Colormap
        From bad scores to good ones, which stand out most.
    """

    complete: str
    best: str
    failed: str
    muted: Color
    faint: Color
    foreground: Color
    background: Color
    splits: tuple[str, ...]
    ramp: Colormap


def current_look() -> Look:
    """Return the look that goes with matplotlib's settings.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    """
    with map_import_errors("a display"):
        import matplotlib as mpl
        from matplotlib.colors import LinearSegmentedColormap, to_rgb
    foreground = to_rgb(mpl.rcParams["text.color"])
    dark = _luminance(foreground) > 0.5  # noqa: PLR2004 (half of white)
    face = mpl.rcParams["axes.facecolor"]
    background = (0.0,) * 3 if dark else (1.0,) * 3
    background = background if face == "none" else to_rgb(face)
    ramp = LinearSegmentedColormap.from_list(
        "dask_hpsearch", _RAMP_DARK if dark else _RAMP_LIGHT
    )
    return Look(
        **(_DARK if dark else _LIGHT),
        muted=_blend(foreground, background, 0.55),
        faint=_blend(foreground, background, 0.15),
        foreground=foreground,
        background=background,
        splits=_SPLITS_DARK if dark else _SPLITS_LIGHT,
        ramp=ramp,
    )


def _luminance(color: Color) -> float:
    red, green, blue = color
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _blend(color: Color, background: Color, share: float) -> Color:
    red, green, blue = (
        share * one + (1 - share) * other
        for one, other in zip(color, background, strict=True)
    )
    return red, green, blue


def paler(color: str, look: Look) -> Color:
    """Return a colour halfway to the background."""
    from matplotlib.colors import to_rgb

    return _blend(to_rgb(color), look.background, 0.5)


def axes_for(ax: Axes | None, *, figsize: tuple[float, float]) -> Axes:
    """Return the axes to draw on: those of the user, or new ones of a size in inches."""
    with map_import_errors("a display"):
        import matplotlib.pyplot as plt
    if ax is not None:
        return ax
    _, new = plt.subplots(figsize=figsize, layout="constrained")
    return new


def divided(ax: Axes, n_rows: int, n_columns: int) -> tuple[Axes, list[Axes]]:
    """Divide axes, which are no longer drawn themselves.

    Returns
    -------
    above : Axes
        For the key.
    parts : list of Axes
        A grid, row by row.
    """
    spec = ax.get_subplotspec()
    if spec is None:
        msg = "ax must be a subplot, as plt.subplots() makes it, so that it can be divided"
        raise ValueError(msg)
    ax.set_axis_off()
    heights = [_KEY_HEIGHT, *[1.0] * n_rows]
    grid = spec.subgridspec(n_rows + 1, n_columns, height_ratios=heights, wspace=0.06)
    figure = ax.figure
    above = figure.add_subplot(grid[0, :])
    above.set_axis_off()
    first = figure.add_subplot(grid[1, 0])
    others = [
        figure.add_subplot(grid[row + 1, column], sharey=first)
        for row in range(n_rows)
        for column in range(n_columns)
        if (row, column) != (0, 0)
    ]
    return above, [first, *others]


def tidy(ax: Axes, look: Look, *, grid: str = "y") -> None:
    """Remove what carries nothing from axes: frame, tick marks; add a faint grid."""
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        ax.spines[side].set_color(look.muted)
    ax.tick_params(which="both", length=0, colors=look.muted, labelsize="small")
    for label in (*ax.get_xticklabels(), *ax.get_yticklabels()):
        label.set_color(look.foreground)
    ax.tick_params(labelcolor=look.foreground)
    ax.set_axisbelow(True)
    ax.grid(visible=False)
    if grid:
        ax.grid(visible=True, axis=grid, color=look.faint, linewidth=0.8)  # type: ignore[arg-type]


def outlined(text: Any, look: Look) -> None:
    """Keep a text legible above lines."""
    from matplotlib.patheffects import withStroke

    text.set_path_effects([withStroke(linewidth=2.5, foreground=look.background)])


def key(ax: Axes, handles: Iterable[Artist], *, obvious: str = "complete") -> None:
    """Show what marks mean in a row above axes, unless there are only obvious ones."""
    from matplotlib.collections import PathCollection

    handles = list(handles)
    if all(one.get_label() == obvious for one in handles):
        return
    legend = ax.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        ncols=len(handles),
        frameon=False,
        borderaxespad=0.1,
        borderpad=0.2,
        handletextpad=0.3,
        columnspacing=1.2,
        handlelength=1.2,
        fontsize="small",
    )
    for handle in legend.legend_handles:
        if handle is not None:
            handle.set_alpha(1.0)
        if isinstance(handle, PathCollection):
            handle.set_sizes([max(one, _KEY_SIZE) for one in handle.get_sizes()])


def plain_numbers(axis: Axis) -> None:
    """Label an axis of scores with the scores themselves, not with offsets."""
    from matplotlib.ticker import ScalarFormatter

    axis.set_major_formatter(ScalarFormatter(useOffset=False))


def score_label(name: str, *, mean: bool = True) -> str:
    """Return the label of an axis of scores."""
    text = "score" if name == "score" else name
    return f"Mean test {text}" if mean else f"Test {text}"


def short(text: str, longest: int = _LONGEST_LABEL) -> str:
    """Shorten a label in its middle."""
    if len(text) <= longest:
        return text
    half = (longest - 1) // 2
    return f"{text[:half]}…{text[-half:]}"


# --- candidates as points ---------------------------------------------------------------


def draw_candidates(
    ax: Axes,
    x: FloatArray,
    scores: FloatArray,
    status: Sequence[Status],
    look: Look,
    *,
    limits: tuple[float, float],
    size: float = 26.0,
) -> list[Artist]:
    """Draw candidates as points: their shape is their status; return the key's marks.

    Those without a score, and those far below the others, are on a strip at the bottom.
    """
    low, high = limits
    room = high - low
    is_of = {
        one: np.array([each == one for each in status], dtype=bool) for one in Status
    }
    known = np.isfinite(scores)
    strip = ~known | is_of[Status.FAILED] | (scores < low)
    if not known.any():
        ax.set_yticks([])  # there is no scale without a score
    bottom = 0.16 if strip[np.isfinite(x)].any() else 0.06
    ax.set_ylim(low - bottom * room, high + 0.1 * room)
    strip_y = low - bottom * room + _STRIP * room * (1.1 + bottom)
    y = np.where(strip, strip_y, scores)
    crowd = float(np.clip(40.0 / np.sqrt(max(len(x), 1)) / 3, 0.45, 0.9))
    size *= smaller(len(x))
    marks: list[Artist] = []

    def mark(chosen: Any, label: str, **options: Any) -> None:
        if chosen.any():
            marks.append(ax.scatter(x[chosen], y[chosen], label=label, **options))

    below = strip & known & ~is_of[Status.FAILED]
    hollow = {"s": size, "facecolors": "none", "linewidths": 1.2, "zorder": 2.5}
    mark(
        is_of[Status.COMPLETE] & ~strip,
        "complete",
        s=size,
        color=look.complete,
        alpha=crowd,
        linewidths=0,
        zorder=3,
    )
    mark(is_of[Status.DROPPED] & ~strip, "dropped", edgecolors=[look.muted], **hollow)
    mark(
        is_of[Status.UNFINISHED] & ~strip,
        "unfinished",
        marker="D",
        edgecolors=[look.muted],
        **hollow,
    )
    mark(
        is_of[Status.FAILED],
        "failed",
        s=size * 1.2,
        marker="x",
        color=look.failed,
        linewidths=1.6,
        zorder=4,
        clip_on=False,
    )
    mark(below, f"below {low:.3g}", s=size, marker="v", color=look.muted, clip_on=False)
    return marks


def smaller(n_candidates: int) -> float:
    """Return how much smaller marks are if there are many."""
    return float(np.clip(_MANY / max(n_candidates, 1), 0.12, 1.0))


def ring(ax: Axes, x: float, y: float, look: Look) -> Artist:
    """Mark the best candidate."""
    return ax.scatter(
        [x],
        [y],
        s=90,
        facecolors="none",
        edgecolors=look.best,
        linewidths=2,
        zorder=5,
        label="best",
    )
