"""How important each parameter is for the score."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np

from dask_hpsearch.plots.importance import importances_of
from dask_hpsearch.plots.parameter_scale import short_names
from dask_hpsearch.plots.sources import read_search
from dask_hpsearch.plots.style import axes_for, current_look, score_label, tidy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from dask_hpsearch.plots.search_data import FloatArray

_LEAST_EXPLAINED = 0.2


class ParameterImportanceDisplay:
    """The part of the scores' variance that each parameter explains, with intervals.

    A random forest predicts the score from the parameters. The importance of a parameter
    is its total effect on the forest: the part of the variance that it causes, alone and
    with others, so that all may add up to more than 1. The interval has nine of ten
    importances by forests of resampled candidates. Values of parameters are as the search
    drew them: what was not varied, or only in a small range, is not important here.

    If the forest explains little of the scores of unseen candidates, the importances mean
    little; `explained` says how much. It is recommended to use `from_search` to create a
    display.

    Parameters
    ----------
    names : sequence of str
        Parameters, the most important first.
    samples : ndarray of shape (n_resamples, n_parameters)
        Importances by resampled candidates.
    explained : float
        Part of the variance that the forest explains, out of bag; from 0 to 1.
    score_name : str

    Attributes
    ----------
    importances : ndarray of shape (n_parameters,)
        Means over the resamples.
    intervals : ndarray of shape (n_parameters, 2)
        Their quantiles of 5 % and 95 %.
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    """

    def __init__(
        self,
        *,
        names: Sequence[str],
        samples: FloatArray,
        explained: float,
        score_name: str,
    ) -> None:
        self.names = names
        self.samples = samples
        self.explained = explained
        self.score_name = score_name
        self.importances = samples.mean(axis=0)
        self.intervals = np.quantile(samples, [0.05, 0.95], axis=0).T

    @classmethod
    def from_search(
        cls,
        source: Any,
        *,
        params: Sequence[str] | None = None,
        scoring: str | None = None,
        n_resamples: int = 20,
        random_state: int = 0,
    ) -> Self:
        """Create a display of a search.

        Of a halving search, the candidates of the first rung count, which have the same
        resources.

        Parameters
        ----------
        source : fitted search, DaskSearchCV, SearchRun or cv_results_
            A run may be under way, or stopped.
        params : sequence of str, optional
            Which parameters to compare; default: all that vary.
        scoring : str, optional
            Which of several scores to display; default: that of ``refit``.
        n_resamples : int
            Number of forests. More give steadier intervals, and take longer.
        random_state : int
            Seed of the forests.

        Returns
        -------
        ParameterImportanceDisplay
            Call `plot` to draw it.

        Raises
        ------
        ValueError
            If there is no such score or parameter, if fewer than four candidates are
            complete, or if all have the same score.
        """
        data = read_search(source)
        found = importances_of(
            data,
            scoring=scoring,
            params=params,
            n_resamples=n_resamples,
            random_state=random_state,
        )
        return cls(
            names=found.names,
            samples=found.samples,
            explained=found.explained,
            score_name=data.score_name(scoring),
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
        ax = axes_for(ax, figsize=(6.5, 1.4 + 0.42 * len(self.names)))
        tidy(ax, look, grid="")
        y = np.arange(len(self.names))
        weak = self.explained < _LEAST_EXPLAINED
        ax.barh(y, self.importances, height=0.62, color=look.complete, alpha=0.9)
        low, high = self.intervals.T
        ax.hlines(y, low, high, color=look.foreground, linewidth=1.4, zorder=3)
        for place, value in enumerate(self.importances):
            ax.annotate(
                f"{value:.2f}",
                (max(float(high[place]), float(value)), place),
                xytext=(5, 0),
                textcoords="offset points",
                va="center",
                fontsize="small",
                color=look.foreground,
            )
        names = short_names(self.names)
        ax.set_yticks(y, [names[one] for one in self.names], fontsize="medium")
        ax.spines["left"].set_visible(False)
        ax.set_ylim(len(self.names) - 0.4, -0.6)
        ax.set_xlim(0, max(float(high.max()) * 1.15, 0.1))
        what = score_label(self.score_name).lower()
        ax.set_xlabel(f"Part of the variance of the {what} (with interactions)")
        text = (
            f"The forest explains {self.explained:.0%} of unseen candidates' variance"
        )
        text += ": too little to rely on" if weak else ""
        ax.annotate(
            text,
            (0, 1),
            xycoords="axes fraction",
            xytext=(0, 4),
            textcoords="offset points",
            va="bottom",
            fontsize="small",
            color=look.failed if weak else look.muted,
        )
        self.ax_, self.figure_ = ax, ax.figure
        return self
