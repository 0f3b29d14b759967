from __future__ import annotations

import json
import math
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from dask_hpsearch.journal.run_state import RunState
from dask_hpsearch.live import html
from dask_hpsearch.live.candidates import CandidateProgress, Status
from dask_hpsearch.live.slices import slice_charts
from dask_hpsearch.live.state import N_TOP, curve_of
from dask_hpsearch.progress import Fits
from dask_hpsearch.runs.live import LiveRun
from tests.live.runs import N_SPLITS, WrittenRun
from tests.runs.recorded import new_store

if TYPE_CHECKING:
    from dask_hpsearch.live.state import LiveState


def written(n_candidates: int, **more: Any) -> WrittenRun:
    """A run under way, of which nothing has finished yet."""
    return WrittenRun(new_store(), n_candidates=n_candidates, **more).begin(
        cost_usd=0.5, dashboard="http://127.0.0.1:8787/status"
    )


def test_the_state_has_the_facts_of_the_journal() -> None:
    """Counts, cluster, cost, best candidate and what may be done."""
    run = written(20, failing=frozenset({3}), dropped=frozenset({5}))
    run.finish_candidates(10)

    state = LiveRun(run.run, can_scale=True).refresh()

    assert (state.state, state.about.name) == ("running", "churn")
    assert (state.complete, state.failed, state.dropped) == (8, 1, 1)
    assert (state.fits_done, state.fits_failed) == (9 * N_SPLITS + 2, N_SPLITS)
    assert (state.workers, state.slots, state.busy) == (2, 8, 7)
    assert state.cost_usd == 0.5
    assert state.dashboard == "http://127.0.0.1:8787/status"
    assert state.actions == ("stop", "cancel", "scale")
    assert state.best_score == run.run.progress().best_score
    assert state.eta is not None
    assert state.eta > time.time()


def test_the_state_is_json_without_nan() -> None:
    """Browsers refuse NaN."""
    run = written(4, failing=frozenset({0}))
    run.finish_candidates(2)

    text = json.dumps(LiveRun(run.run).refresh().to_json(), allow_nan=False)

    assert json.loads(text)["failed"] == 1


def facts(state: LiveState) -> dict[str, Any]:
    """Return what does not depend on the moment."""
    moment = {"at", "eta", "rate", "elapsed"}
    return {name: one for name, one in state.to_json().items() if name not in moment}


def test_a_state_that_grew_equals_one_that_was_read_at_once() -> None:
    """Reading a journal in parts loses nothing, and counts nothing twice."""
    run = written(60, failing=frozenset({7, 30}), dropped=frozenset({9}))
    growing = LiveRun(run.run)
    for first in range(0, 60, 5):
        run.finish_candidates(5, first)
        state = growing.refresh()

    at_once = LiveRun(run.run).refresh()

    assert facts(state) == facts(at_once)


def test_the_top_candidates_are_those_with_the_highest_means() -> None:
    """Ten of them, the first of equal ones first, as their splits' means say."""
    run = written(50, failing=frozenset({2}))
    run.finish_candidates(50)
    means = {
        candidate: np.mean([run.score(candidate, split) for split in range(N_SPLITS)])
        for candidate in range(50)
        if candidate != 2
    }

    state = LiveRun(run.run).refresh()

    best = sorted(means, key=lambda one: -means[one])[:N_TOP]
    assert [one.candidate for one in state.top] == best
    assert [one.rank for one in state.top] == list(range(1, N_TOP + 1))
    assert state.top[0].score == pytest.approx(means[best[0]])


def test_the_curve_of_many_candidates_is_thin_and_keeps_the_best() -> None:
    """A picture needs some hundred points, not ten thousand."""
    run = written(10_000, seconds=0.01, failing=frozenset(range(0, 10_000, 50)))
    run.finish_candidates(10_000)

    state = LiveRun(run.run).refresh()

    assert state.curve.n == 10_000
    assert len(state.curve.x) < 400
    assert state.curve.best[-1] == pytest.approx(state.top[0].score, rel=1e-5)
    assert None in state.curve.scores
    assert len(json.dumps(state.to_json())) < 30_000


def test_best_so_far_never_falls() -> None:
    """It is a running maximum, up to the last candidate."""
    run = written(80)
    run.finish_candidates(80)

    curve = LiveRun(run.run).refresh().curve

    assert list(curve.best) == sorted(curve.best)
    assert curve.best_x[-1] == 80


def test_a_run_that_has_ended_offers_nothing() -> None:
    """Its reason is there, and no slot is busy."""
    run = written(8)
    run.finish_candidates(5)
    run.end(RunState.STOPPED, reason="max_time")

    state = LiveRun(run.run, can_scale=True).refresh()

    assert (state.state, state.reason, state.actions) == ("stopped", "max_time", ())
    assert (state.busy, state.eta, state.dashboard) == (0, None, "")
    assert "max_time was reached" in html.snapshot(state)


def test_the_error_of_a_failed_run_is_shown_as_text() -> None:
    """Whatever it has in it."""
    run = written(3)
    run.end(RunState.FAILED, error="ValueError: <script>alert(1)</script>")

    shown = html.snapshot(LiveRun(run.run).refresh())

    assert "ValueError: &lt;script&gt;" in shown
    assert "<script" not in shown


def test_names_and_parameters_are_escaped() -> None:
    """A user's texts are no markup, in the parts or in the charts."""
    run = WrittenRun(new_store(), n_candidates=3, name="<img src=x onerror=alert(1)>")
    for number, params in enumerate(run.params):
        params["<b>"] = f"<i>{number}</i>\"'"
    run.begin()
    run.finish_candidates(3)
    live = LiveRun(run.run)

    shown = html.snapshot(live.refresh())
    charts = "".join(svg for _, svg in slice_charts(live.progress))

    for text in (shown, charts):
        assert "<img" not in text
        assert "<b>" not in text.replace("<b>done at", "").replace("<dd><b>", "")
        assert "<i>0" not in text
    assert "&lt;i&gt;0&lt;/i&gt;" in charts


def test_parts_have_neither_inline_styles_nor_scripts() -> None:
    """The dashboard's pages forbid both."""
    run = written(30, failing=frozenset({1}))
    run.finish_candidates(20)
    live = LiveRun(run.run, can_scale=True)

    text = "".join(html.parts(live.refresh()).values())

    for word in ("style=", "<script", "onclick", "javascript:"):
        assert word not in text


def test_an_earlier_rung_does_not_compare() -> None:
    """Only candidates of the last call with comparable scores are on the curve."""
    progress = CandidateProgress(lambda: 1.0)
    for call, score in ((0, 0.9), (1, 0.5)):
        progress.call_started(call, n_candidates=1, n_splits=1)
        progress.fit_finished(call, 0, 0, params={}, score=score, fit_time=0.1)

    found = progress.candidates()

    assert found.compares.tolist() == [False, True]
    assert curve_of(found).best == (0.5, 0.5)


def test_many_fits_at_once_leave_the_same_candidates() -> None:
    """Fits of the journal's columns count as those that come one by one."""
    scores = [[0.1, 0.2], [0.3, math.nan]]
    together, single = CandidateProgress(lambda: 5.0), CandidateProgress(lambda: 5.0)
    for progress in (together, single):
        progress.call_started(0, n_candidates=3, n_splits=2)
    fits = Fits(
        candidates=np.array([0, 0, 1, 1]),
        splits=np.array([0, 1, 0, 1]),
        scores=np.array(scores).ravel(),
        failed=np.array([False, False, False, True]),
        times=np.full(4, 5.0),
    )
    together.fits_finished(0, fits, lambda candidate: {"C": candidate})
    for candidate, row in enumerate(scores):
        for split, score in enumerate(row):
            single.fit_finished(
                0, candidate, split, params={"C": candidate}, score=score,
                fit_time=0.1, failed=math.isnan(score),
            )  # fmt: skip

    for progress in (together, single):
        found = progress.candidates()
        assert found.status.tolist() == [Status.COMPLETE, Status.FAILED]
        np.testing.assert_allclose(found.scores, [0.15, math.nan])
        assert progress.params_of(0, 1) == {"C": 1}
        assert progress.n_candidates() == 3
