from __future__ import annotations

import io
import math
import os
import subprocess
import sys
import threading
import tracemalloc
from dataclasses import dataclass, field
from typing import Any

import nbformat
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nbclient import NotebookClient

from dask_hpsearch.progress import Fits, ProgressSnapshot, SearchProgress, show, text
from dask_hpsearch.progress.lines import show_in_lines
from dask_hpsearch.progress.notebook import show_in_notebook
from dask_hpsearch.progress.state import RATE_FITS, RATE_WINDOW_S
from tests.terminal import Terminal


@dataclass
class Clock:
    """Time that stands still until a test moves it."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def finish(
    progress: SearchProgress,
    candidate: int,
    split: int = 0,
    score: float | None = 0.5,
    call: int = 0,
    **kwargs: Any,
) -> None:
    """Report a fit, with all that a test does not care about."""
    params = {"C": candidate}
    progress.fit_finished(
        call, candidate, split, params=params, score=score, fit_time=0.1, **kwargs
    )


# ------------------------------------------------------------------- the counts


def test_a_new_search_has_nothing_to_tell() -> None:
    """Before the first call everything is zero or unknown."""
    assert SearchProgress().snapshot() == ProgressSnapshot()


def test_fits_are_counted_against_those_announced() -> None:
    """The total grows with every call; failed fits count as done."""
    progress = SearchProgress()
    progress.call_started(0, n_candidates=4, n_splits=2)
    finish(progress, candidate=0, split=0)
    finish(progress, candidate=0, split=1, score=None)
    progress.call_started(1, n_candidates=2, n_splits=2)

    snapshot = progress.snapshot()

    assert (snapshot.fits_done, snapshot.fits_total, snapshot.fits_failed) == (2, 12, 1)


def test_fits_of_dropped_candidates_that_never_begin_are_not_known_fits() -> None:
    """A fit of them that was running still counts; one with all its fits is complete."""
    progress = SearchProgress()
    progress.call_started(0, n_candidates=10, n_splits=4)
    finish(progress, candidate=0)
    progress.candidate_dropped(0, 0)
    finish(progress, candidate=0, split=1)
    for split in range(4):
        finish(progress, candidate=1, split=split)
    progress.candidate_dropped(0, 1)

    snapshot = progress.snapshot()

    assert (snapshot.fits_done, snapshot.fits_total, snapshot.dropped) == (6, 38, 1)
    assert text.fits(snapshot) == "6/38 fits, 1 candidate dropped"


def test_a_fit_reported_twice_counts_once() -> None:
    """A fit that ran again, after its worker was lost, is the same fit."""
    progress = SearchProgress()
    progress.call_started(0, n_candidates=1, n_splits=2)

    finish(progress, candidate=0)
    finish(progress, candidate=0)

    assert progress.snapshot().fits_done == 1


def test_an_unknown_number_of_candidates_leaves_no_estimate() -> None:
    """Without a known total the fits seen are the total, and there is no ETA."""
    clock = Clock()
    progress = SearchProgress(clock)
    progress.call_started(0, n_candidates=None, n_splits=2)
    clock.now = 1
    finish(progress, candidate=0)

    snapshot = progress.snapshot()

    assert (snapshot.fits_total, snapshot.eta) == (1, None)


def test_an_unknown_score_is_no_failure_if_the_search_says_so() -> None:
    """A callable refit may leave no single score of a fit that went well."""
    progress = SearchProgress()

    finish(progress, candidate=0, score=None, failed=False)

    assert progress.snapshot().fits_failed == 0


def test_slots_are_shown_as_last_reported() -> None:
    """The cluster may change its size at any time."""
    progress = SearchProgress()
    progress.slots_changed(workers=1, slots=2, running=2)
    progress.slots_changed(workers=4, slots=8, running=3)

    snapshot = progress.snapshot()

    assert (snapshot.workers, snapshot.slots, snapshot.running) == (4, 8, 3)


def test_no_report_is_lost_between_threads() -> None:
    """Fits that finish in several threads at once are all counted."""
    progress = SearchProgress()
    progress.call_started(0, n_candidates=800, n_splits=1)
    threads = [
        threading.Thread(
            target=lambda first=first: [
                finish(progress, candidate) for candidate in range(first, first + 200)
            ]
        )
        for first in range(0, 800, 200)
    ]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert progress.snapshot().fits_done == 800


@given(
    fits=st.lists(
        st.tuples(
            st.integers(0, 9),
            st.integers(0, 9),
            st.sampled_from([0.1, 0.2, 0.7, 1e300, -math.inf, math.inf, math.nan]),
        ),
        max_size=150,
    ),
    n_splits=st.integers(1, 10),
    parts=st.integers(1, 5),
)
def test_many_fits_at_once_count_as_one_by_one(
    fits: list[tuple[int, int, float]], n_splits: int, parts: int
) -> None:
    """The counts, and the best candidate to the last digit."""
    fits = [one for one in fits if one[1] < n_splits]
    single, many = SearchProgress(), SearchProgress()
    for progress in (single, many):
        progress.call_started(0, n_candidates=10, n_splits=n_splits)
    for candidate, split, score in fits:
        finish(single, candidate, split, score)

    for part in range(parts):
        some = fits[part * len(fits) // parts : (part + 1) * len(fits) // parts]
        candidates, splits, scores = np.array(some).reshape(-1, 3).T
        arrays = Fits(
            candidates.astype(int),
            splits.astype(int),
            scores,
            np.isnan(scores),
            np.zeros(len(some)),
        )
        many.fits_finished(0, arrays, lambda candidate: {"C": candidate})

    one, other = single.snapshot(), many.snapshot()
    for name in ("fits_done", "fits_total", "fits_failed", "best_score", "best_params"):
        assert getattr(one, name) == getattr(other, name)


def test_a_fit_takes_few_bytes() -> None:
    """A search may have millions, and its driver has other things to keep."""
    progress = SearchProgress()
    params: dict[str, Any] = {"C": 1}
    tracemalloc.start()
    progress.call_started(0, n_candidates=20_000, n_splits=2)
    for number in range(40_000):
        progress.fit_finished(
            0, number // 2, number % 2, params=params, score=0.5, fit_time=0.1
        )
    progress.snapshot()
    nbytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    recent = 40 * 40_000  # the times of the last half a minute, for the rate
    assert nbytes < 12 * 40_000 + recent


# --------------------------------------------------------------------- the best


def test_a_candidate_counts_for_best_when_all_its_splits_are_in() -> None:
    """A good first split may have been luck."""
    progress = SearchProgress()
    progress.call_started(0, n_candidates=2, n_splits=2)
    finish(progress, candidate=0, split=0, score=0.6)
    finish(progress, candidate=0, split=1, score=0.8)
    finish(progress, candidate=1, split=0, score=1.0)

    snapshot = progress.snapshot()

    assert snapshot.best_score == pytest.approx(0.7)
    assert snapshot.best_params == {"C": 0}


@pytest.mark.parametrize("score", [None, float("nan"), np.float64("nan")], ids=repr)
def test_a_candidate_with_a_failed_fit_is_never_best(score: float | None) -> None:
    """Its mean score is not a number, in scikit-learn too."""
    progress = SearchProgress()
    progress.call_started(0, n_candidates=1, n_splits=2)
    finish(progress, candidate=0, split=0, score=0.9)
    finish(progress, candidate=0, split=1, score=score)

    snapshot = progress.snapshot()

    assert (snapshot.best_score, snapshot.fits_failed) == (None, 1)


def test_a_later_rung_starts_the_best_anew() -> None:
    """Scores of halving's rungs do not compare: later ones saw more data."""
    progress = SearchProgress()
    progress.call_started(0, n_candidates=1, n_splits=1)
    finish(progress, candidate=0, score=0.9)
    progress.call_started(1, n_candidates=2, n_splits=1)
    assert progress.snapshot().best_score is None

    finish(progress, candidate=1, score=0.7, call=1)

    assert progress.snapshot().best_score == 0.7


def test_an_open_rung_counts_once_it_has_a_candidate() -> None:
    """Rungs without a barrier are announced together; until then lower ones count."""
    progress = SearchProgress()
    progress.call_started(0, n_candidates=1, n_splits=1)
    progress.call_started(1, n_candidates=1, n_splits=1, still_open=True)
    progress.call_started(2, n_candidates=1, n_splits=1, still_open=True)
    finish(progress, candidate=0, score=0.9)
    assert progress.snapshot().best_score == 0.9

    finish(progress, candidate=0, score=0.7, call=1)

    assert progress.snapshot().best_score == 0.7


def test_calls_that_compare_share_their_best() -> None:
    """A Bayesian search makes many calls; its best may be of an early one."""
    progress = SearchProgress()
    progress.call_started(0, n_candidates=1, n_splits=1)
    finish(progress, candidate=0, score=0.9)
    progress.call_started(1, n_candidates=1, n_splits=1, resets_best=False)
    finish(progress, candidate=5, score=0.7, call=1)
    finish(progress, candidate=6, score=0.9, call=1)

    snapshot = progress.snapshot()

    assert (snapshot.best_score, snapshot.best_params) == (0.9, {"C": 0})


SCORES = [[0.1, 0.2, 0.3], [0.3, 0.1, 0.2], [0.7, None, 0.9], [0.1, 0.1, 0.1]]
EVENTS = ["announce", *((c, s) for c in range(4) for s in range(3))]


@settings(deadline=None)
@given(order=st.permutations(EVENTS))
def test_order_of_arrival_does_not_matter(order: list[Any]) -> None:
    """Workers finish in any order, even ahead of the announcement."""
    progress = SearchProgress(Clock())

    for event in order:
        if event == "announce":
            progress.call_started(0, n_candidates=4, n_splits=3)
        else:
            candidate, split = event
            finish(progress, candidate, split, SCORES[candidate][split])

    snapshot = progress.snapshot()
    assert (snapshot.fits_done, snapshot.fits_total, snapshot.fits_failed) == (
        12,
        12,
        1,
    )
    assert snapshot.best_score == pytest.approx(0.2)
    assert snapshot.best_params == {"C": 0}


# --------------------------------------------------------------- rate and times


def test_rate_and_estimate_follow_the_last_half_minute() -> None:
    """A cluster that grew is seen in the estimate soon."""
    clock = Clock()
    progress = SearchProgress(clock)
    progress.call_started(0, n_candidates=1000, n_splits=1)
    for candidate in range(100):
        clock.now += 1
        finish(progress, candidate)
    for candidate in range(100, 600):
        clock.now += 0.1
        finish(progress, candidate)

    snapshot = progress.snapshot()

    assert clock.now > RATE_WINDOW_S
    assert snapshot.rate == pytest.approx(10, rel=0.01)
    assert snapshot.eta == pytest.approx(40, rel=0.01)


def test_fits_longer_than_the_window_have_a_rate() -> None:
    """A fit that takes minutes must not read as a standstill."""
    clock = Clock()
    progress = SearchProgress(clock)
    progress.call_started(0, n_candidates=40, n_splits=1)
    for candidate in range(2 * RATE_FITS):
        clock.now += 300
        finish(progress, candidate)

    assert progress.snapshot().rate == pytest.approx(1 / 300)


@settings(deadline=None)
@given(
    gaps=st.lists(st.floats(0, 100, allow_subnormal=False), max_size=60),
    since=st.floats(0, 1000),
)
def test_the_rate_never_exceeds_what_was_seen(gaps: list[float], since: float) -> None:
    """Rate and estimate are finite, and fall while nothing comes in."""
    clock = Clock()
    progress = SearchProgress(clock)
    progress.call_started(0, n_candidates=100, n_splits=1)
    for candidate, gap in enumerate(gaps):
        clock.now += gap
        finish(progress, candidate)

    before = progress.snapshot().rate
    clock.now += since
    after = progress.snapshot()

    assert 0 <= after.rate <= before or before == 0
    assert after.eta is None or after.eta >= 0


def test_the_clock_stops_with_the_search() -> None:
    """What is read later is the search's own time, and its rate over all of it."""
    clock = Clock()
    progress = SearchProgress(clock)
    progress.slots_changed(workers=1, slots=2, running=2)
    progress.call_started(0, n_candidates=10, n_splits=1)
    finish(progress, candidate=0)
    clock.now = 4
    progress.ended("max_time")
    clock.now = 100

    snapshot = progress.snapshot()

    assert (snapshot.elapsed, snapshot.rate, snapshot.eta) == (4, 0.25, None)
    assert (snapshot.ended, snapshot.reason, snapshot.running) == (True, "max_time", 0)


# -------------------------------------------------------------------- the words


class Unprintable:
    def __repr__(self) -> str:
        msg = "no repr"
        raise RuntimeError(msg)


class Rude:
    def __repr__(self) -> str:
        return "\x1b[2J\r\nrude"


@pytest.mark.parametrize(
    "value",
    [
        "x" * 10**6,
        list(range(10**6)),
        {str(i): i for i in range(10**4)},
        np.zeros(10**6),
        10**5000,
        Unprintable(),
        [Unprintable()],
        Rude(),
    ],
    ids=["str", "list", "dict", "array", "int", "no-repr", "nested", "rude"],
)
def test_odd_parameters_become_one_short_line(value: Any) -> None:
    """Parameters may be of any size, and any class."""
    line = text.shorten_params({"a": value, "b": 1})

    assert len(line) < 100
    assert line.startswith("a=")
    assert line.endswith(", b=1")
    assert line.isprintable()


def test_numbers_of_numpy_are_shown_as_numbers() -> None:
    """As distributions and grids of arrays give them; a function stays what it is."""
    values = (np.float64(0.25), np.int64(3), np.bool_(True), [np.str_("rbf")])  # noqa: FBT003

    line = text.shorten_params(dict(zip("abcd", values, strict=True)))

    assert line == "a=0.25, b=3, c=True, d=['rbf']"
    assert text.shorten_params({"f": np.log1p}) == "f=<ufunc 'log1p'>"


@settings(deadline=None)
@given(
    params=st.dictionaries(st.text(min_size=1), st.integers() | st.text(), max_size=3)
)
def test_parameters_stay_on_one_line(params: dict[str, Any]) -> None:
    """Whatever their names and values, they are printable and bounded."""
    line = text.shorten_params(params)

    assert line.isprintable()
    assert 0 < len(line) <= text.PARAMS_LENGTH


@pytest.mark.parametrize(
    ("snapshot", "words"),
    [
        (
            ProgressSnapshot(
                fits_done=1200, fits_total=1200, fits_failed=2, elapsed=75, ended=True
            ),
            "Search done: 1,200 fits, 2 failed, 1:15",
        ),
        (
            ProgressSnapshot(
                fits_done=7,
                fits_total=20,
                elapsed=3725,
                best_score=0.97314,
                best_params={"C": 1},
                ended=True,
                reason="max_time",
            ),
            "Search stopped (max_time): 7 of 20 fits, 1:02:05; best 0.9731: C=1",
        ),
        (ProgressSnapshot(fits_total=20), "Search ended: 0 of 20 fits, 0:00"),
        (
            ProgressSnapshot(fits_done=1, fits_total=1, best_params={"C": 1}),
            "Search ended: 1 fit, 0:00; best: C=1",
        ),
        (
            ProgressSnapshot(
                fits_done=8, fits_total=20, ended=True, reason="stop_score", dropped=3
            ),
            "Search stopped: score reached: 8 of 20 fits, 3 candidates dropped, 0:00",
        ),
        (
            ProgressSnapshot(fits_done=8, fits_total=20, ended=True, reason="patience"),
            "Search stopped: no improvement: 8 of 20 fits, 0:00",
        ),
        (
            ProgressSnapshot(fits_total=20, reason="continues"),
            "Search continues: 0 of 20 fits, 0:00",
        ),
    ],
)
def test_the_summary_says_how_the_search_ended(
    snapshot: ProgressSnapshot, words: str
) -> None:
    """Done, stopped and failed searches read differently."""
    assert text.summary(snapshot) == words


def test_the_pace_names_rate_time_and_cluster() -> None:
    """One line holds all that changes from second to second."""
    snapshot = ProgressSnapshot(
        fits_done=1,
        fits_total=2,
        rate=0.5,
        eta=119.6,
        elapsed=2,
        workers=1,
        slots=4,
        running=3,
    )

    assert text.pace(snapshot) == (
        "30.0 fits/min · 0:02 elapsed · about 2:00 left · 1 worker, 4 slots (3 busy)"
    )


# ----------------------------------------------------------------- the terminal


def test_a_terminal_shows_progress_and_keeps_one_line() -> None:
    """The lines follow the search and give way to its summary."""
    terminal = Terminal()
    progress = SearchProgress()
    progress.call_started(0, n_candidates=2, n_splits=1)

    with show(progress, enabled=True, stream=terminal.stream):
        finish(progress, candidate=0, score=0.75)
        progress.slots_changed(workers=2, slots=4, running=1)
        terminal.wait_for("1/2 fits")
        terminal.wait_for("best 0.7500: C=0")
        terminal.wait_for("2 workers, 4 slots (1 busy)")
        params = {"long": "x" * 50, "list": list(range(100)), "last": 1}
        progress.fit_finished(0, 1, 0, params=params, score=0.8, fit_time=0)
        progress.ended(None)

    *_, before, last = terminal.close().splitlines()
    assert "Search done" in last
    assert last.endswith("\N{HORIZONTAL ELLIPSIS}")
    assert "Search done" not in before


def test_a_terminal_that_goes_away_does_not_end_the_search() -> None:
    """A closed terminal costs the display only."""
    terminal = Terminal()
    progress = SearchProgress()

    with show(progress, enabled=True, stream=terminal.stream):
        terminal.close()


def test_the_terminal_is_restored_when_the_search_fails() -> None:
    """The error passes on, after the summary, and the streams are as before."""
    terminal = Terminal()
    before = sys.stdout, sys.stderr

    with (
        pytest.raises(KeyError),
        show(SearchProgress(), enabled=True, stream=terminal.stream),
    ):
        raise KeyError

    assert "Search ended: 0 fits" in terminal.close()
    assert (sys.stdout, sys.stderr) == before


def test_a_terminal_stays_silent_unless_asked() -> None:
    """``enabled=False`` writes nothing, not even control codes."""
    terminal = Terminal()

    with show(SearchProgress(), enabled=False, stream=terminal.stream):
        pass

    assert terminal.close() == ""


def test_progress_imports_neither_rich_nor_ipython() -> None:
    """Whoever does not ask for a display does not pay for its import."""
    code = (
        "import sys, dask_hpsearch.progress as p\n"
        "with p.show(p.SearchProgress(), enabled=False): pass\n"
        "with p.show(p.SearchProgress(), enabled=True): pass\n"
        "assert not {'rich', 'IPython'} & set(sys.modules)"
    )

    subprocess.run([sys.executable, "-c", code], check=True, stderr=subprocess.PIPE)


# ------------------------------------------------------------ a file or a pipe


class Lines(io.StringIO):
    """A file whose lines can be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.three = threading.Event()

    def flush(self) -> None:
        if self.getvalue().count("\n") >= 3:
            self.three.set()


def test_a_file_gets_a_line_now_and_then_and_one_at_the_end() -> None:
    """Under nohup, in CI, or through tee, nothing can be redrawn."""
    stream, progress = Lines(), SearchProgress()
    progress.call_started(0, n_candidates=2, n_splits=1)
    finish(progress, candidate=0, score=0.75)

    with show_in_lines(progress, stream, every_s=0.01):
        assert stream.three.wait(30)
        finish(progress, candidate=1)
        progress.ended(None)

    first, *_, last = stream.getvalue().splitlines()
    assert first.startswith("Search: 1/2 fits · ")
    assert first.endswith("0 workers, 0 slots (0 busy) · best 0.7500: C=0")
    assert last == "Search done: 2 fits, 0:00; best 0.7500: C=0"
    assert "\x1b" not in stream.getvalue()
    assert "\r" not in stream.getvalue()


def test_a_short_search_writes_one_line_to_a_file() -> None:
    """Nothing is news within half a minute but its end."""
    stream, progress = io.StringIO(), SearchProgress()

    with show(progress, enabled=True, stream=stream):
        progress.ended(None)

    assert stream.getvalue() == "Search done: 0 fits, 0:00\n"


def test_a_file_stays_empty_unless_asked() -> None:
    """``enabled=False`` writes nothing, and starts nothing."""
    stream = io.StringIO()
    threads = threading.active_count()

    with show(SearchProgress(), enabled=False, stream=stream):
        assert threading.active_count() == threads

    assert stream.getvalue() == ""


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-16"])
def test_a_file_of_any_encoding_gets_its_lines(encoding: str) -> None:
    """cron's output may be ASCII, and parameters any text."""
    content = io.BytesIO()
    stream = io.TextIOWrapper(content, encoding=encoding)
    progress = SearchProgress()
    progress.call_started(0, n_candidates=1, n_splits=1)
    params = {"name": "☃"}
    progress.fit_finished(0, 0, 0, params=params, score=1.0, fit_time=0)

    with show(progress, enabled=True, stream=stream):
        progress.ended(None)

    assert "Search done: 1 fit, 0:00; best 1.0000" in content.getvalue().decode(
        encoding
    )


def test_a_pipe_that_nobody_reads_does_not_end_the_search() -> None:
    """``| head`` may end before the search does."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w", buffering=1) as stream:
        with show(SearchProgress(), enabled=True, stream=stream):
            pass
        os.dup2(os.open(os.devnull, os.O_WRONLY), writing)  # close() writes the rest


def test_a_process_without_streams_shows_nothing() -> None:
    """pythonw and some services have none."""
    code = (
        "import sys; sys.stderr = None\n"
        "import dask_hpsearch.progress as p\n"
        "with p.show(p.SearchProgress(), enabled=True): print('runs')"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)

    assert done.stdout == b"runs\n"


def test_the_end_says_what_to_do_about_a_search_that_ended_early() -> None:
    """A stopped search and a failed one have a hint, a whole one has not."""
    lines = {}
    for end in ("done", "max_time", "error"):
        stream, progress = io.StringIO(), SearchProgress()
        progress.hint = "go on"
        with show(progress, enabled=True, stream=stream):
            if end != "error":
                progress.ended(None if end == "done" else end)
        lines[end] = stream.getvalue().splitlines()[1:]

    assert lines == {"done": [], "max_time": ["go on"], "error": ["go on"]}


# ----------------------------------------------------------------- the notebook


@dataclass
class Output:
    """One output cell: what it shows now, and what it showed before."""

    shown: list[dict[str, str]] = field(default_factory=list)
    changed: threading.Event = field(default_factory=threading.Event)

    def __call__(self, obj: Any, *, raw: bool, display_id: bool) -> Output:
        assert raw
        assert display_id
        self.shown.append(obj)
        return self

    def update(self, obj: Any, *, raw: bool) -> None:
        assert raw
        self.shown.append(obj)
        self.changed.set()


def test_a_notebook_block_follows_the_search() -> None:
    """It is updated while the search runs, and its thread ends with it."""
    output = Output()
    progress = SearchProgress()
    threads = threading.active_count()

    with show_in_notebook(progress, output):
        assert output.changed.wait(30)
        progress.ended(None)

    assert "Search done" in output.shown[-1]["text/html"]
    assert threading.active_count() == threads


def test_html_is_escaped() -> None:
    """A parameter is text, whatever it looks like."""
    output = Output()
    progress = SearchProgress()
    progress.call_started(0, n_candidates=1, n_splits=1)
    params = {"<b>": "<script>alert(1)</script>"}
    progress.fit_finished(0, 0, 0, params=params, score=1.0, fit_time=0)

    with show_in_notebook(progress, output):
        pass

    for bundle in output.shown:
        assert "&lt;b&gt;=&#x27;&lt;script&gt;" in bundle["text/html"]
        assert "<script>" not in bundle["text/html"]
        assert "<b>=" in bundle["text/plain"]


class LostOutput(Output):
    def update(self, obj: Any, *, raw: bool) -> None:
        msg = "the connection to the notebook is gone"
        raise OSError(msg)


def test_a_notebook_that_goes_away_does_not_end_the_search() -> None:
    """A lost connection costs the display only."""
    with show_in_notebook(SearchProgress(), LostOutput()):
        pass


CELL = """
import threading
from dask_hpsearch.progress import SearchProgress, show

progress = SearchProgress()
progress.call_started(0, n_candidates=1, n_splits=1)
names = lambda: [thread.name for thread in threading.enumerate()]
with show(progress, enabled=True):
    assert "dask-hpsearch-progress" in names()
    progress.fit_finished(0, 0, 0, params={"C": 1}, score=0.5, fit_time=0)
    progress.ended(None)
assert "dask-hpsearch-progress" not in names()
"""


def test_a_real_kernel_shows_one_block() -> None:
    """In Jupyter all updates end up in one output, with the summary in it."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])

    NotebookClient(notebook, timeout=60, kernel_name="python3").execute()

    (output,) = notebook.cells[0].outputs
    assert "Search done: 1 fit," in output["data"]["text/html"]
    assert "best 0.5000: C=1" in output["data"]["text/plain"]
