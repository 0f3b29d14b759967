"""The scores of candidates over each parameter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np

from dask_hpsearch.plots.parameter_scale import ParameterScale, short_names
from dask_hpsearch.plots.search_data import Status
from dask_hpsearch.plots.sources import read_parameters
from dask_hpsearch.plots.style import (
    axes_for,
    current_look,
    divided,
    draw_candidates,
    key,
    plain_numbers,
    ring,
    score_label,
    tidy,
)
from dask_hpsearch.progress.score_limits import score_limits

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

    from dask_hpsearch.plots.search_data import FloatArray
    from dask_hpsearch.plots.style import Look

_COLUMNS = 4
_JITTER = 0.36
_GOLDEN = 0.6180339887498949  # multiples of it are spread evenly in every range


class ParameterSliceDisplay:
    """The score of each candidate over the values of each parameter.

    It is recommended to use `from_search` to create a display. A candidate of a halving
    search is shown with its last score.

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
        What is divided among the parameters; it is not drawn itself.
    axes_ : ndarray of matplotlib Axes
        One for each parameter.
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
            Which parameters to display; default: all that vary.
        scoring : str, optional
            Which of several scores to display; default: that of ``refit``.

        Returns
        -------
        ParameterSliceDisplay
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
            A subplot, which is divided among the parameters. Default: a new figure.

        Returns
        -------
        self

        Raises
        ------
        MissingExtraError
            If matplotlib is not installed.
        """
        look = current_look()
        n_columns = min(len(self.values), _COLUMNS)
        n_rows = -(-len(self.values) // n_columns)
        ax = axes_for(ax, figsize=(1.2 + 2.5 * n_columns, 0.6 + 2.7 * n_rows))
        above, parts = divided(ax, n_rows, n_columns)
        for part in parts[len(self.values) :]:
            part.remove()
        parts = parts[: len(self.values)]
        names = short_names(list(self.values))
        marks: dict[str, Artist] = {}
        for place, (part, name) in enumerate(zip(parts, self.values, strict=True)):
            tidy(part, look)
            plain_numbers(part.yaxis)
            for mark in self._draw(part, name, look):
                marks.setdefault(str(mark.get_label()), mark)
            self.scales[name].set_on(part, "x", label=names[name])
            if place % n_columns:
                part.tick_params(axis="y", labelleft=False)
            else:
                part.set_ylabel(score_label(self.score_name))
        key(above, marks.values())
        legend = above.get_legend()
        if legend is not None:
            legend.set_bbox_to_anchor((0.0, 0.0))
            legend.set_in_layout(False)
        self.ax_, self.figure_ = ax, ax.figure
        self.axes_ = np.array(parts, dtype=object)
        return self

    def _draw(self, part: Axes, name: str, look: Look) -> list[Artist]:
        """Draw the candidates over one parameter; return the key's marks."""
        scale = self.scales[name]
        x = scale.positions(self.values[name])
        if scale.kind == "category":
            x += _JITTER * (np.arange(len(x)) * _GOLDEN % 1 - 0.5)
        limits = score_limits(self.mean_scores)
        drawn = draw_candidates(
            part, x, self.mean_scores, self.status, look, limits=limits
        )
        complete = np.array([one == Status.COMPLETE for one in self.status], dtype=bool)
        scores = np.where(
            complete & np.isfinite(self.mean_scores), self.mean_scores, -np.inf
        )
        best = int(np.argmax(scores))
        if np.isfinite(scores[best]) and np.isfinite(x[best]):
            drawn.append(ring(part, float(x[best]), float(scores[best]), look))
        return drawn
