"""The data that the displays draw, and what they refuse."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.tree import DecisionTreeClassifier

from dask_hpsearch import DaskSearchCV, plots
from dask_hpsearch.plots import (
    ContourDisplay,
    ParallelCoordinatesDisplay,
    ParameterImportanceDisplay,
    ParameterSliceDisplay,
    SearchHistoryDisplay,
    SplitScoresDisplay,
    TimelineDisplay,
)
from dask_hpsearch.plots.search_data import ClusterSizes, Status
from dask_hpsearch.plots.style import SPLIT_MARKERS, current_look
from dask_hpsearch.plots.timeline import rows_of
from dask_hpsearch.progress.score_limits import score_limits
from tests.plots.pictures import options_of, run_of
from tests.plots.searches import SEARCHES
from tests.processes import script

if TYPE_CHECKING:
    from pathlib import Path

WITHOUT_TIMES = [name for name in plots.__all__ if name != "TimelineDisplay"]


@pytest.mark.parametrize("search", ["grid", "halving", "multimetric", "failing"])
@pytest.mark.parametrize("display", WITHOUT_TIMES)
def test_cv_results_are_enough(display: str, search: str) -> None:
    """For all that needs no times."""
    results: Any = SEARCHES[search].cv_results()
    scoring = "accuracy" if search == "multimetric" else None

    drawn = (
        getattr(plots, display)
        .from_search(results, scoring=scoring, **options_of(display, search))
        .plot()
    )

    drawn.figure_.canvas.draw()
    assert drawn.ax_.figure is drawn.figure_


@pytest.mark.parametrize("display", plots.__all__)
def test_axes_of_the_user_are_drawn_on(display: str) -> None:
    """No figure is made beside."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4), layout="constrained")

    drawn = (
        getattr(plots, display)
        .from_search(run_of("failing"), **options_of(display, "failing"))
        .plot(ax=left)
    )

    figure.canvas.draw()
    assert drawn.ax_ is left
    assert drawn.figure_ is figure
    assert len(plt.get_fignums()) == 1
    assert not right.lines
    assert not right.collections


@pytest.mark.parametrize("display", plots.__all__)
def test_a_part_of_a_figure_is_drawn_on(display: str) -> None:
    """Matplotlib's subfigures have no size in inches."""
    left, _ = plt.figure(figsize=(12, 4)).subfigures(1, 2)

    drawn = (
        getattr(plots, display)
        .from_search(run_of("failing"), **options_of(display, "failing"))
        .plot(ax=left.subplots())
    )

    drawn.figure_.canvas.draw()
    assert drawn.figure_ is left


def test_the_best_so_far_counts_complete_candidates() -> None:
    """Dropped and failed ones are shown, and no best."""
    results = {
        "params": [{"a": one} for one in range(5)],
        "mean_test_score": [0.5, 0.9, np.nan, 0.4, 0.7],
        "dropped": [False, True, False, False, False],
    }

    shown = SearchHistoryDisplay.from_search(results)

    assert list(shown.status) == ["complete", "dropped", "failed", *["complete"] * 2]
    np.testing.assert_array_equal(shown.best_so_far, [0.5, 0.5, 0.5, 0.5, 0.7])
    np.testing.assert_array_equal(shown.x, [1, 2, 3, 4, 5])
    assert shown.by == "candidate"


def test_the_best_begins_anew_in_each_rung() -> None:
    """Scores with other resources do not compare."""
    shown = SearchHistoryDisplay.from_search(run_of("halving"))

    firsts = [int(np.flatnonzero(shown.rungs == rung)[0]) for rung in range(3)]
    assert [shown.best_so_far[row] for row in firsts] == [
        shown.mean_scores[row] for row in firsts
    ]
    assert np.diff(shown.best_so_far[shown.rungs == 0]).min() >= 0


def test_times_begin_with_the_first_fit() -> None:
    """A candidate is there when its last fit has ended."""
    search = SEARCHES["grid"]
    shown = SearchHistoryDisplay.from_search(run_of("grid"))

    # Four slots: the fifth split of the first candidate begins after its first one.
    assert shown.x[0] == pytest.approx(21 + 1 + 33)
    assert len(shown.x) == len(search.params)


def test_a_candidate_of_a_halving_search_is_shown_once() -> None:
    """With its last score; importances and contours take the first rung instead."""
    run, search = run_of("halving"), SEARCHES["halving"]

    slices = ParameterSliceDisplay.from_search(run)
    lines = ParallelCoordinatesDisplay.from_search(run)
    contour = ContourDisplay.from_search(
        run, params=("model__learning_rate", "model__max_depth")
    )

    assert len(slices.mean_scores) == len(lines.mean_scores) == len(search.params)
    values = search.cv_results()
    np.testing.assert_allclose(slices.mean_scores.max(), max(values["mean_test_score"]))
    np.testing.assert_allclose(contour.mean_scores, values["mean_test_score"][:27])


def test_parameters_that_a_candidate_lacks_are_shown_as_not_set() -> None:
    """Several grids have several sets of parameters."""
    results = {
        "params": [{"C": 1.0, "kernel": "a"}, {"C": 10.0}, {"kernel": "b"}, {"C": 3.0}],
        "mean_test_score": [0.1, 0.2, 0.3, 0.4],
    }

    lines = ParallelCoordinatesDisplay.from_search(results).plot()
    ParameterSliceDisplay.from_search(results).plot()
    SplitScoresDisplay.from_search(results).plot()
    importances = ParameterImportanceDisplay.from_search(results, n_resamples=2)

    texts = [text.get_text() for text in lines.ax_.texts]
    assert texts.count("not set") == 2
    assert set(importances.names) == {"C", "kernel"}


def test_constant_parameters_are_left_out_unless_they_are_named() -> None:
    """They say nothing about the score."""
    results = {
        "params": [{"a": one, "b": 1} for one in range(4)],
        "mean_test_score": [0.1, 0.2, 0.3, 0.4],
    }

    assert list(ParameterSliceDisplay.from_search(results).values) == ["a"]
    named = ParameterSliceDisplay.from_search(results, params=["b"]).plot()
    assert list(named.values) == ["b"]
    ContourDisplay.from_search(results, params=("a", "b")).plot()
    with pytest.raises(ValueError, match="two parameters that vary"):
        ContourDisplay.from_search(results)


def test_the_important_parameter_is_found_with_its_interval() -> None:
    """The others have next to no importance; a seed gives the same again."""
    rng = np.random.default_rng(0)
    params = [
        {"good": float(rng.random()), "bad": float(rng.random()), "kind": kind}
        for kind in ["x", "y"] * 40
    ]
    scores = [math.sin(5 * one["good"]) for one in params]
    results = {"params": params, "mean_test_score": scores}

    shown, again = (
        ParameterImportanceDisplay.from_search(results, n_resamples=5) for _ in range(2)
    )

    assert shown.names[0] == "good"
    assert shown.importances[0] > 0.9
    assert shown.importances[1:].max() < 0.1
    assert (shown.intervals[:, 0] <= shown.intervals[:, 1]).all()
    assert shown.explained > 0.9
    np.testing.assert_array_equal(shown.samples, again.samples)


def test_a_forest_that_explains_nothing_says_so() -> None:
    """Importances of noise are nothing to rely on."""
    rng = np.random.default_rng(1)
    results = {
        "params": [{"a": float(rng.random())} for _ in range(40)],
        "mean_test_score": rng.random(40),
    }

    shown = ParameterImportanceDisplay.from_search(results, n_resamples=2).plot()

    assert shown.explained < 0.2
    assert "too little to rely on" in shown.ax_.texts[-1].get_text()


def test_a_contour_follows_the_scores() -> None:
    """Its top is where the best candidates are."""
    rng = np.random.default_rng(0)
    x, y = rng.random(60), rng.random(60)
    results = {
        "params": [{"x": float(a), "y": float(b)} for a, b in zip(x, y, strict=True)],
        "mean_test_score": -((x - 0.7) ** 2) - (y - 0.3) ** 2,
    }

    surface = ContourDisplay.from_search(results, params=("x", "y")).surface

    row, column = np.unravel_index(surface.argmax(), surface.shape)
    assert column / surface.shape[1] == pytest.approx(0.7, abs=0.1)
    assert row / surface.shape[0] == pytest.approx(0.3, abs=0.1)


def test_the_best_candidates_come_first_in_split_scores() -> None:
    """Complete ones before those of which splits are missing."""
    shown = SplitScoresDisplay.from_search(run_of("randomized"), n_candidates=40)

    complete = [one == "complete" for one in shown.status]
    assert complete == sorted(complete, reverse=True)
    means = shown.mean_scores[: sum(complete)]
    assert (np.diff(means) <= 0).all()
    assert shown.n_others == 0
    np.testing.assert_allclose(shown.split_scores[0].mean(), means[0])


def test_one_bad_candidate_does_not_flatten_the_others() -> None:
    """It is below the axis."""
    scores = np.array([0.9, 0.91, 0.92, 0.93, 0.94, -300.0, np.nan])

    assert score_limits(scores) == (0.9, 0.94)
    assert score_limits(np.array([0.5, 0.5])) == pytest.approx((0.475, 0.525))
    assert score_limits(np.array([np.nan])) == (0.0, 1.0)


def test_a_row_of_the_timeline_has_one_fit_at_a_time() -> None:
    """There are as many rows as fits ran at once."""
    rng = np.random.default_rng(0)
    starts = rng.random(200) * 50
    ends = starts + rng.random(200) * 3

    rows = rows_of(starts, ends)

    for row in range(rows.max() + 1):
        mine = np.flatnonzero(rows == row)
        mine = mine[np.argsort(starts[mine])]
        assert (starts[mine][1:] >= ends[mine][:-1]).all()
    at_once = max(((starts <= one) & (ends > one)).sum() for one in starts)
    assert rows.max() + 1 == at_once


def test_the_timeline_shows_workers_that_come_and_go() -> None:
    """As the driver noted them."""
    shown = TimelineDisplay.from_search(run_of("running")).plot()

    texts = [text.get_text() for text in shown.ax_.texts]
    assert texts == ["+1 worker", "\N{MINUS SIGN}1 worker", "+1 worker"]
    assert len(shown.starts) == 83
    assert shown.starts.min() == 0


def test_slots_are_not_free_while_no_driver_runs() -> None:
    """A run may be resumed hours later."""
    sizes = ClusterSizes(
        times=np.array([5.0, 905.0]), workers=np.array([1, 1]), slots=np.array([2, 2])
    )

    shown = TimelineDisplay(
        starts=np.array([0.0, 900.0]),
        ends=np.array([20.0, 910.0]),
        status=[Status.COMPLETE] * 2,
        sizes=sizes,
        driver_starts=np.array([899.0]),
    ).plot()

    line = shown.ax_.lines[0]
    assert list(line.get_xdata() * 60) == [5, 20, 905, 910]
    assert list(line.get_ydata()) == [2, 0, 2, 2]
    assert [text.get_text() for text in shown.ax_.texts] == ["driver 2"]


def test_an_incremental_search_has_one_score() -> None:
    """Those of dask-ml have one validation set, and no means."""
    results = {"params": [{"a": 1}, {"a": 2}], "test_score": [0.5, 0.75]}

    shown = SearchHistoryDisplay.from_search(results)

    assert shown.score_name == "score"
    np.testing.assert_array_equal(shown.best_so_far, [0.5, 0.75])


def test_a_table_of_pandas_and_numpy_values_are_cv_results_too() -> None:
    """As users keep them."""
    results = SEARCHES["grid"].cv_results()
    results["params"] = [
        {
            name: np.float64(one) if name != "kernel" else one
            for name, one in each.items()
        }
        for each in results["params"]
    ]

    shown = ParameterSliceDisplay.from_search(pd.DataFrame(results))

    assert [one.kind for one in shown.scales.values()] == ["log", "log", "category"]


def test_a_table_of_trials_says_what_is_unfinished() -> None:
    """Its rows without a mean have not failed."""
    shown = SearchHistoryDisplay.from_search(run_of("stopped").trials())

    assert list(shown.status) == ["complete"] * 11 + ["unfinished"]


def test_colours_follow_the_style() -> None:
    """Foreground and background are those of matplotlib's settings."""
    light = current_look()
    plt.style.use("dark_background")
    dark = current_look()

    assert light.foreground == dark.background == to_rgb("black")
    assert dark.foreground == light.background == to_rgb("white")
    assert light.complete != dark.complete
    # Good scores stand out from the background.
    assert sum(light.ramp(1.0)[:3]) < 1
    assert sum(dark.ramp(1.0)[:3]) > 2


def luminance_of(color: Any) -> float:
    """Return the relative luminance of a colour, as WCAG defines it."""
    linear = [
        one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4
        for one in to_rgb(color)
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_no_mark_is_faint_on_black() -> None:
    """By the contrast that WCAG asks of text; no two splits have one colour."""
    plt.style.use("dark_background")
    dark = current_look()

    marks = [dark.complete, dark.best, dark.failed, dark.muted, *dark.splits]
    contrasts = [(luminance_of(one) + 0.05) / 0.05 for one in marks]
    assert min(contrasts) > 4.5
    assert len(set(dark.splits)) == len(SPLIT_MARKERS)


def unfitted() -> Any:
    """Return a search that was not fitted."""
    return GridSearchCV(DecisionTreeClassifier(), {"max_depth": [1, 2]})


GRID = SEARCHES["grid"].cv_results()
TWO = SEARCHES["multimetric"].cv_results()


@pytest.mark.parametrize(
    ("source", "options", "error", "match"),
    [
        (TWO, {}, ValueError, "choose one with scoring=, of .*accuracy.*roc_auc"),
        (TWO, {"scoring": "f1"}, ValueError, "must be one of .*got 'f1'"),
        (GRID, {"by": "time"}, ValueError, "use a SearchRun"),
        (GRID, {"by": "rank"}, ValueError, "must be 'time' or 'candidate'"),
        ({"params": []}, {}, ValueError, "must have 'params', and 'mean_test_score'"),
        ("runs/one", {}, TypeError, r"SearchRun.attach\(url\)"),
        (unfitted(), {}, NotFittedError, "call fit first"),
        (DaskSearchCV(unfitted()), {}, NotFittedError, "call fit first"),
    ],
)
def test_what_cannot_be_displayed_is_refused(
    source: Any, options: dict[str, Any], error: type[Exception], match: str
) -> None:
    """The error says the way out."""
    with pytest.raises(error, match=match):
        SearchHistoryDisplay.from_search(source, **options)


def test_a_timeline_needs_a_run() -> None:
    """The error says which source has times."""
    with pytest.raises(ValueError, match=r"use a SearchRun.*backend='trials'"):
        TimelineDisplay.from_search(GRID)


def test_too_few_candidates_are_refused() -> None:
    """Not drawn as if they said something."""
    results = {
        "params": [{"a": 1, "b": 1}, {"a": 2, "b": 2}],
        "mean_test_score": [0.1, 0.2],
    }

    with pytest.raises(ValueError, match="importances need 4 complete candidates"):
        ParameterImportanceDisplay.from_search(results)
    with pytest.raises(ValueError, match="a contour needs 3 complete candidates"):
        ContourDisplay.from_search(results, params=("a", "b"))
    with pytest.raises(ValueError, match=r"got \['c'\]"):
        ParameterSliceDisplay.from_search(results, params=["c"])
    with pytest.raises(ValueError, match="positive integer, got 0"):
        SplitScoresDisplay.from_search(results, n_candidates=0)
    with pytest.raises(ValueError, match="two different parameters"):
        ContourDisplay.from_search(results, params=("a", "a"))


def test_all_failed_candidates_are_drawn() -> None:
    """Without a best one, and without a warning."""
    results = {
        "params": [{"a": one} for one in range(4)],
        "mean_test_score": [np.nan] * 4,
    }

    for display in (
        SearchHistoryDisplay,
        ParameterSliceDisplay,
        ParallelCoordinatesDisplay,
        SplitScoresDisplay,
    ):
        display.from_search(results).plot().figure_.canvas.draw()


def test_a_search_without_a_score_has_no_scale_of_scores() -> None:
    """What the crosses mean is said, and no score is made up."""
    results = {
        "params": [{"a": one} for one in range(4)],
        "mean_test_score": [np.nan] * 4,
        "split0_test_score": [np.nan] * 4,
    }

    history = SearchHistoryDisplay.from_search(results).plot()
    splits = SplitScoresDisplay.from_search(results).plot()
    lines = ParallelCoordinatesDisplay.from_search(results).plot()

    assert not list(history.ax_.get_yticks())
    assert keys_of(history.ax_) == ["failed"]
    assert not list(splits.ax_.get_xticks())
    assert splits.ax_.get_legend() is None
    texts = [text.get_text() for text in lines.ax_.texts]
    assert texts == ["0", "1", "2", "3", "a", "Mean test score", "no score"]


def keys_of(ax: Any) -> list[str]:
    """Return the texts of the key of axes."""
    legend = ax.get_legend()
    return [] if legend is None else [text.get_text() for text in legend.get_texts()]


@pytest.mark.parametrize("n_candidates", [1, 2, 7, 20])
def test_candidates_have_whole_numbers(n_candidates: int) -> None:
    """There is no candidate 2.5."""
    results = {
        "params": [{"a": one} for one in range(n_candidates)],
        "mean_test_score": np.linspace(0.5, 0.9, n_candidates),
    }

    ax = SearchHistoryDisplay.from_search(results).plot().ax_

    ticks = [one for one in ax.get_xticks() if 1 <= one <= n_candidates]
    assert ticks
    assert ticks == [round(one) for one in ticks]


def test_scores_close_to_each_other_are_told_apart() -> None:
    """Neither an offset nor the same label for all."""
    scores = 1 - 1e-6 * np.arange(1.0, 9.0)
    results = {
        "params": [{"a": one, "b": one % 3} for one in range(8)],
        "mean_test_score": scores,
    }

    history = SearchHistoryDisplay.from_search(results).plot()
    lines = ParallelCoordinatesDisplay.from_search(results).plot()

    history.figure_.canvas.draw()
    assert not history.ax_.yaxis.get_offset_text().get_text()
    assert "best 0.999999" in [text.get_text() for text in history.ax_.texts]
    labels = [text.get_text() for text in lines.ax_.texts]
    assert len([one for one in labels if one.startswith("0.99999")]) >= 3
    assert "1" not in labels[-6:]


def test_many_parameters_stay_legible() -> None:
    """The figure fits into a notebook, and names do not overlap."""
    names = [f"parameter_number_{one}" for one in range(14)]
    rng = np.random.default_rng(0)
    results = {
        "params": [{name: float(rng.random()) for name in names} for _ in range(20)],
        "mean_test_score": rng.random(20),
    }

    shown = ParallelCoordinatesDisplay.from_search(results).plot()

    shown.figure_.canvas.draw()
    assert shown.figure_.get_size_inches()[0] <= 13
    headers = [
        text.get_window_extent()
        for text in shown.ax_.texts
        if text.get_text() in {*names, "Mean test score"}
    ]
    assert len(headers) == len(names) + 1
    for place, one in enumerate(headers):
        assert not any(one.overlaps(other) for other in headers[place + 1 :])


def test_split_scores_say_what_they_leave_out() -> None:
    """Candidates, and parameters for which there is no room."""
    results = {
        "params": [
            {f"parameter_number_{name}": one for name in range(10)} for one in range(9)
        ],
        "mean_test_score": np.linspace(0, 1, 9),
        "split0_test_score": np.linspace(0, 1, 9),
    }

    shown = SplitScoresDisplay.from_search(results, n_candidates=8).plot()

    label = shown.ax_.get_xlabel()
    assert "(1 more candidate and 7 more parameters not shown)" in label


def test_a_score_below_the_axis_is_marked_as_such() -> None:
    """It is not drawn as if it were the worst of the others."""
    scores = np.linspace(0.9, 0.94, 8)
    bad = scores.copy()
    bad[3] = -300.0
    results = {
        "params": [{"a": one} for one in range(8)],
        "mean_test_score": bad,
        "split0_test_score": scores,
        "split1_test_score": bad,
    }

    splits = SplitScoresDisplay.from_search(results).plot()
    lines = ParallelCoordinatesDisplay.from_search(results).plot()

    assert keys_of(splits.ax_)[-1] == "below 0.9"
    assert "≤ 0.9" in [text.get_text() for text in lines.ax_.texts]


def test_a_contour_of_equal_scores_is_flat() -> None:
    """The first two parameters, since none is important."""
    results = {
        "params": [{"a": one, "b": one % 3, "c": one % 2} for one in range(8)],
        "mean_test_score": [0.5] * 8,
    }

    shown = ContourDisplay.from_search(results).plot()

    assert (shown.x_scale.name, shown.y_scale.name) == ("a", "b")
    np.testing.assert_allclose(shown.surface, 0.5)


@pytest.mark.parametrize(("n_fits", "has_edges"), [(20, True), (4000, False)])
def test_edges_do_not_cover_the_bars_of_a_crowded_timeline(
    *, n_fits: int, has_edges: bool
) -> None:
    """Failed fits among thousands are still seen."""
    starts = np.arange(n_fits, dtype=np.float64)

    shown = TimelineDisplay(
        starts=starts, ends=starts + 1, status=[Status.COMPLETE] * n_fits
    ).plot()

    (bars,) = shown.ax_.collections
    assert bool(np.max(bars.get_linewidths()) > 0) == has_edges


def test_importing_the_displays_does_not_import_matplotlib(tmp_path: Path) -> None:
    """It is imported when something is drawn."""
    text = (
        "import sys, dask_hpsearch\n"
        "dask_hpsearch.plots.SearchHistoryDisplay.from_search(\n"
        '    {"params": [{"a": 1}], "mean_test_score": [0.5]})\n'
        'print("matplotlib" in sys.modules)\n'
    )

    with script(text, tmp_path) as process:
        output, errors = process.communicate(timeout=100)

    assert (output.strip(), errors) == ("False", "")
    assert "matplotlib" in sys.modules
