"""The scores of candidates over two parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np

from dask_hpsearch.plots.importance import importances_of
from dask_hpsearch.plots.parameter_scale import (
    ParameterScale,
    digits_for,
    number_text,
    round_ticks,
    short_names,
)
from dask_hpsearch.plots.search_data import Status
from dask_hpsearch.plots.sources import read_search
from dask_hpsearch.plots.style import (
    axes_for,
    current_look,
    key,
    plain_numbers,
    ring,
    score_label,
    smaller,
    tidy,
)
from dask_hpsearch.plots.surface import Surface
from dask_hpsearch.progress.score_limits import score_limits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable

    from dask_hpsearch.plots.search_data import BoolArray, FloatArray, SearchData
    from dask_hpsearch.plots.style import Look

_CELLS = 60
_LEVELS = 12
_PAIR = 2
_LEAST_CANDIDATES = 3
_CATEGORY_DISTANCE = 0.5
_JITTER = 0.3
# Multiples of both together fill a square evenly: Roberts, "The unreasonable
# effectiveness of quasirandom sequences" (2018).
_STEPS = {"x": 0.7548776662466927, "y": 0.5698402909980532}


class ContourDisplay:
    """The score over two parameters, smoothed between the candidates.

    The surface is the mean of a Gaussian process through the scores of complete candidates.
    Where there are no candidates near, it is a guess. Other parameters vary too: their
    effect is noise here. It is recommended to use `from_search` to create a display.

    Parameters
    ----------
    x, y : list
        The values of two parameters of each candidate.
    x_scale, y_scale : ParameterScale
    mean_scores : ndarray of shape (n_candidates,)
    status : sequence of Status
    score_name : str

    Attributes
    ----------
    surface : ndarray of shape (n_y, n_x)
        The smoothed score on a grid over the range of the candidates.
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    colorbar_ : matplotlib Colorbar
    """

    def __init__(
        self,
        *,
        x: Sequence[Any],
        y: Sequence[Any],
        x_scale: ParameterScale,
        y_scale: ParameterScale,
        mean_scores: FloatArray,
        status: Sequence[Status],
        score_name: str,
    ) -> None:
        self.x = x
        self.y = y
        self.x_scale = x_scale
        self.y_scale = y_scale
        self.mean_scores = mean_scores
        self.status = status
        self.score_name = score_name
        self.surface = self._surface()

    @classmethod
    def from_search(
        cls,
        source: Any,
        *,
        params: tuple[str, str] | None = None,
        scoring: str | None = None,
    ) -> Self:
        """Create a display of a search.

        Of a halving search, the candidates of the first rung are displayed, which have the
        same resources.

        Parameters
        ----------
        source : fitted search, DaskSearchCV, SearchRun or cv_results_
            A run may be under way, or stopped.
        params : tuple of two str, optional
            The parameters of the x axis and of the y axis; default: the two most important
            ones, as `ParameterImportanceDisplay` finds them, or the first two that vary if
            it finds none.
        scoring : str, optional
            Which of several scores to display; default: that of ``refit``.

        Returns
        -------
        ContourDisplay
            Call `plot` to draw it.

        Raises
        ------
        ValueError
            If there is no such score or parameter, if not two parameters vary, or if fewer
            than three complete candidates have both.
        """
        data = read_search(source)
        name = data.score_name(scoring)
        rows = data.first_rung_rows()
        x_name, y_name = _pair(data, params, scoring)
        columns = {one: data.values_of(one) for one in (x_name, y_name)}
        x, y = ([columns[one][row] for row in rows] for one in (x_name, y_name))
        return cls(
            x=x,
            y=y,
            x_scale=ParameterScale.of(x_name, x),
            y_scale=ParameterScale.of(y_name, y),
            mean_scores=data.mean_scores[name][rows],
            status=[data.status[row] for row in rows],
            score_name=name,
        )

    def _surface(self) -> FloatArray:
        scales = self.x_scale, self.y_scale
        x, y = (
            scale.positions(values)
            for scale, values in zip(scales, (self.x, self.y), strict=True)
        )
        known = np.isfinite(x) & np.isfinite(y) & np.isfinite(self.mean_scores)
        known &= np.array([one == Status.COMPLETE for one in self.status], dtype=bool)
        if known.sum() < _LEAST_CANDIDATES:
            msg = (
                f"a contour needs {_LEAST_CANDIDATES} complete candidates that have both "
                f"{self.x_scale.name!r} and {self.y_scale.name!r}; there are {known.sum()}"
            )
            raise ValueError(msg)
        scores = np.clip(self.mean_scores[known], *score_limits(self.mean_scores))
        points = np.hstack(
            [
                _features(scale, positions[known])
                for scale, positions in zip(scales, (x, y), strict=True)
            ]
        )
        surface = Surface.through(points, scores)
        x_grid, y_grid = (_grid(scale) for scale in scales)
        mesh_x, mesh_y = np.meshgrid(x_grid, y_grid)
        cells = np.hstack(
            [
                _features(scale, positions.ravel())
                for scale, positions in zip(scales, (mesh_x, mesh_y), strict=True)
            ]
        )
        return surface.at(cells).reshape(mesh_x.shape)

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
        ax = axes_for(ax, figsize=(6.0, 4.6))
        tidy(ax, look, grid="")
        self._draw_surface(ax, look)
        self._draw_points(ax, look)
        names = short_names([self.x_scale.name, self.y_scale.name])
        for scale, which in ((self.x_scale, "x"), (self.y_scale, "y")):
            scale.set_on(ax, which, label=names[scale.name])  # type: ignore[arg-type]
            _limit(ax, scale, which)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _draw_surface(self, ax: Axes, look: Look) -> None:
        from matplotlib.colors import BoundaryNorm

        low, high = float(self.surface.min()), float(self.surface.max())
        if low == high:
            low, high = score_limits(self.surface)
        levels = round_ticks(_LEVELS).tick_values(low, high)
        x, y = _grid(self.x_scale), _grid(self.y_scale)
        mesh: ScalarMappable
        if "category" in (self.x_scale.kind, self.y_scale.kind):
            mesh = ax.pcolormesh(
                _edges(self.x_scale, x),
                _edges(self.y_scale, y),
                self.surface,
                cmap=look.ramp,
                norm=BoundaryNorm(levels, look.ramp.N),
            )
        else:
            mesh = ax.contourf(x, y, self.surface, levels=levels, cmap=look.ramp)
        bar = ax.figure.colorbar(mesh, ax=ax, ticks=levels, pad=0.02)
        bar.outline.set_visible(False)
        bar.ax.tick_params(length=0, labelsize="small", labelcolor=look.foreground)
        plain_numbers(bar.ax.yaxis)
        bar.set_label(score_label(self.score_name))
        self.colorbar_ = bar

    def _draw_points(self, ax: Axes, look: Look) -> None:
        from matplotlib.patheffects import withStroke

        x, y = (
            _jittered(scale, scale.positions(values), _STEPS[which])
            for scale, values, which in (
                (self.x_scale, self.x, "x"),
                (self.y_scale, self.y, "y"),
            )
        )
        is_of = {
            one: np.array([each == one for each in self.status], dtype=bool)
            for one in Status
        }
        marks: list[Artist] = []

        def mark(chosen: BoolArray, label: str, **options: Any) -> None:
            if chosen.any():
                drawn = ax.scatter(
                    x[chosen], y[chosen], zorder=3, label=label, **options
                )
                marks.append(drawn)

        less = smaller(len(x))
        edge = {"edgecolors": [look.background], "linewidths": 0.8 * less}
        size = 22 * less
        mark(is_of[Status.COMPLETE], "complete", s=size, color=look.foreground, **edge)
        mark(
            is_of[Status.DROPPED] | is_of[Status.UNFINISHED],
            "dropped or unfinished",
            s=20 * less,
            marker="D",
            facecolors=[look.background],
            edgecolors=[look.foreground],
        )
        mark(
            is_of[Status.FAILED],
            "failed",
            s=34,
            marker="x",
            color=look.failed,
            linewidths=1.8,
            path_effects=[withStroke(linewidth=3.6, foreground=look.background)],
        )
        scores = np.where(is_of[Status.COMPLETE], self.mean_scores, -np.inf)
        scores[~np.isfinite(x) | ~np.isfinite(y)] = -np.inf
        if np.isfinite(scores).any():
            best = int(np.argmax(scores))
            best_mark = ring(ax, float(x[best]), float(y[best]), look)
            digits = digits_for(*score_limits(self.mean_scores))
            score = number_text(float(scores[best]), digits=digits)
            best_mark.set_label(f"best {score}")
            marks.append(best_mark)
        key(ax, marks)


def _pair(
    data: SearchData, params: tuple[str, str] | None, scoring: str | None
) -> tuple[str, str]:
    if params is None:
        names = _by_importance(data, scoring)
        if len(names) < _PAIR:
            msg = (
                f"a contour needs two parameters that vary; the search varies {names}: "
                "use ParameterSliceDisplay"
            )
            raise ValueError(msg)
        return names[0], names[1]
    if len(params) != _PAIR or params[0] == params[1]:
        msg = f"params must be two different parameters, got {params!r}"
        raise ValueError(msg)
    first, second = data.choose_parameters(params)
    return first, second


def _by_importance(data: SearchData, scoring: str | None) -> list[str]:
    """Return the parameters that vary, in their own order if scores give no other."""
    try:
        return list(importances_of(data, scoring=scoring).names)
    except ValueError:  # too few scores, or all the same
        return data.varied_parameters()


def _grid(scale: ParameterScale) -> FloatArray:
    """Return the positions at which the surface is computed."""
    if scale.kind == "category":
        return np.arange(max(len(scale.categories), 1), dtype=np.float64)
    if scale.low == scale.high:
        return np.array(scale.limits())
    return scale.at(np.linspace(0, 1, _CELLS, dtype=np.float64))


def _edges(scale: ParameterScale, grid: FloatArray) -> FloatArray:
    """Return the edges of the cells around a grid's positions."""
    if scale.kind == "category":
        return np.arange(len(grid) + 1, dtype=np.float64) - 0.5
    if scale.low == scale.high:
        return np.linspace(grid[0], grid[-1], len(grid) + 1)
    units = np.linspace(0, 1, len(grid))
    step = units[1] - units[0]
    return scale.at(np.append(units - step / 2, 1 + step / 2))


def _features(scale: ParameterScale, positions: FloatArray) -> FloatArray:
    """Return positions as coordinates: two categories are always as far apart."""
    if scale.kind != "category":
        return scale.unit(positions)[:, np.newaxis]
    places = np.arange(max(len(scale.categories), 1))
    same: FloatArray = (positions[:, np.newaxis] == places).astype(np.float64)
    return _CATEGORY_DISTANCE * same


def _jittered(scale: ParameterScale, positions: FloatArray, step: float) -> FloatArray:
    if scale.kind != "category":
        return positions
    return positions + _JITTER * (np.arange(len(positions)) * step % 1 - 0.5)


def _limit(ax: Axes, scale: ParameterScale, which: str) -> None:
    """End an axis where the surface ends, with room for the outermost points."""
    if scale.kind == "category" or scale.low == scale.high:
        return
    first, last = scale.at(np.array([-0.03, 1.03]))
    (ax.set_xlim if which == "x" else ax.set_ylim)(float(first), float(last))
