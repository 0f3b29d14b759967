"""Looking on while a run is driven elsewhere, and going on with other limits."""

from __future__ import annotations

import contextlib
import io
import math
import os
import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest
from sklearn.model_selection import GridSearchCV

from dask_hpsearch import DaskSearchCV, SearchRun
from dask_hpsearch.exceptions import RunFailedError
from dask_hpsearch.progress import text
from tests.estimators import Deed, flowers, seen
from tests.processes import wait_until
from tests.terminal import Terminal

if TYPE_CHECKING:
    from pathlib import Path

    from distributed import Client

X, y = flowers()


def grid(tmp_path: Path, **options: Any) -> GridSearchCV:
    """Make a search of 8 fits, which note themselves."""
    deed = Deed(log=str(tmp_path / "fits.log"), client=os.getpid(), **options)
    return GridSearchCV(deed, {"number": [0, 1, 2, 3]}, cv=2)


@pytest.fixture
def waiting(client: Client, tmp_path: Path) -> SearchRun:
    """A run whose fits wait for a gate."""
    own = grid(tmp_path, gate=str(tmp_path / "gate"))
    run = DaskSearchCV(own, client=client, store=tmp_path).submit(X, y)
    wait_until(lambda: seen(tmp_path / "fits.log", "wait"))
    return run


def test_waiting_shows_what_a_fit_shows(waiting: SearchRun, tmp_path: Path) -> None:
    """Its block, and at the end what the results say."""
    terminal = Terminal()

    def open_gate() -> None:
        terminal.wait_for("0/8 fits")
        (tmp_path / "gate").touch()

    opener = threading.Thread(target=open_gate)
    opener.start()
    with contextlib.redirect_stderr(terminal.stream):
        waiting.wait(60, progress=True)
    opener.join()

    found = waiting.result()
    shown = terminal.close()
    assert "Search done: 8 fits, " in shown
    params = text.shorten_params(found.best_params_)
    assert f"; best {found.best_score_:.4f}: {params}" in shown


@pytest.mark.parametrize("end", ["Ctrl-C", "timeout"])
def test_who_looks_on_no_longer_learns_that_the_run_goes_on(
    end: str, waiting: SearchRun
) -> None:
    """And how it is ended."""
    errors = io.StringIO()
    error: Any = KeyboardInterrupt if end == "Ctrl-C" else TimeoutError
    if end == "Ctrl-C":
        threading.Timer(2, os.kill, [os.getpid(), signal.SIGINT]).start()

    with contextlib.redirect_stderr(errors), pytest.raises(error) as caught:
        waiting.wait(60 if end == "Ctrl-C" else 0.5, progress=True)

    *_, summary, hint = errors.getvalue().splitlines()
    assert summary.startswith("Search continues: 0 of 8 fits")
    assert hint.startswith(f"SearchRun.attach({waiting.url!r}) finds it: stop()")
    assert caught.value.__notes__ == [f"the run continues; {hint}"]
    assert waiting.state == "running"
    waiting.cancel().wait(60)


def test_a_run_goes_on_with_other_limits(client: Client, tmp_path: Path) -> None:
    """Without any, where the first one was too short; none while it is under way."""
    own = grid(tmp_path, gate=str(tmp_path / "gate"))
    run = DaskSearchCV(own, client=client, store=tmp_path, max_time=1).submit(X, y)
    run.wait(60)

    assert run.state == "interrupted"
    options = r"resume\(max_time=\.\.\.\)"
    with pytest.raises(RunFailedError, match=rf"give it more time; .*{options}"):
        run.result()
    for limits in ({"max_time": 0}, {"fit_timeout": -1}, {"max_time": "long"}):
        with pytest.raises(ValueError, match="must be a positive number of seconds"):
            run.resume(client, **limits)
    with pytest.raises(ValueError, match="a cluster whose prices are known"):
        run.resume(client, max_cost=1)

    run.resume(client, max_time=math.inf)
    with pytest.raises(RunFailedError, match="its limits cannot change"):
        run.resume(client, max_time=5)
    (tmp_path / "gate").touch()

    assert len(run.result(60).cv_results_["params"]) == 4
