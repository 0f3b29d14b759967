from __future__ import annotations

import os
import re
import signal
import time
from typing import TYPE_CHECKING

import pytest
from sklearn.model_selection import GridSearchCV

from dask_hpsearch import DaskSearchCV, SearchRun, cli, paths
from dask_hpsearch.data import DataStore
from dask_hpsearch.exceptions import RunFailedError
from dask_hpsearch.stores import open_store
from tests.estimators import Deed, flowers, seen
from tests.processes import script, wait_until
from tests.runs.recorded import begun, note_state
from tests.terminal import Terminal

if TYPE_CHECKING:
    from pathlib import Path

    from distributed import Client, LocalCluster

X, y = flowers()
FOLLOWS = """
import sys
from dask_hpsearch.cli import main

sys.exit(main(["attach", {url!r}]))
"""


def grid(tmp_path: Path, **options: str) -> GridSearchCV:
    """Make a search of 8 fits, which note themselves."""
    log = str(tmp_path / "fits.log")
    deed = Deed(log=log, client=os.getpid(), **options)
    return GridSearchCV(deed, {"number": [0, 1, 2, 3]}, cv=2)


@pytest.fixture
def finished(client: Client, tmp_path: Path) -> SearchRun:
    """A run that has finished."""
    ours = DaskSearchCV(
        grid(tmp_path), client=client, store=tmp_path / "store", task_name="flowers"
    )
    ours.fit(X, y)
    (run,) = SearchRun.list(tmp_path / "store")
    return run


def test_runs_are_listed_and_shown(
    finished: SearchRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line for each; by URL or folder."""
    assert cli.main(["runs", str(tmp_path / "store")]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.split() == [finished.run_id, "finished", "8/8", "fits", "flowers"]

    for name in (finished.url, str(tmp_path / "store" / "runs" / finished.run_id)):
        assert cli.main(["show", name]) == 0
        told = capsys.readouterr().out
        assert f"{finished.run_id} (flowers): finished\n8/8 fits, best 0." in told
        assert finished.url in told


def test_a_store_without_runs_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On standard error, so that scripts read an empty list."""
    store = str(tmp_path / "misspelled")

    assert cli.main(["runs", store]) == 0

    assert capsys.readouterr() == ("", f"no runs of yours in {store}\n")


def test_a_run_of_the_default_store_is_found_by_its_name(
    client: Client,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Nothing else need be typed."""
    monkeypatch.setenv("DASK_HPSEARCH_HOME", str(tmp_path))
    DaskSearchCV(grid(tmp_path), client=client).fit(X, y)
    (run,) = SearchRun.list()

    assert cli.main(["attach", run.run_id]) == 0
    assert f"{run.run_id}: finished" in capsys.readouterr().out
    assert cli.main(["logs", run.run_id]) == 0
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith(f"{run.run_id} has no logs here: fit writes to")
    assert cli.main(["stop", run.run_id]) == 1
    assert cli.main(["cancel", run.run_id]) == 1
    assert "is not active, but finished" in capsys.readouterr().out
    assert cli.main(["delete", run.run_id]) == 0
    assert cli.main(["runs"]) == 0
    assert capsys.readouterr().out == f"deleted {run.run_id}\n"
    assert cli.main(["show", run.run_id]) == 1
    assert "no run at" in capsys.readouterr().err


def shown_to_a_follower(run: SearchRun, folder: Path) -> str:
    """Attach in a terminal, and end that by Ctrl-C."""
    terminal = Terminal()
    follower = script(FOLLOWS.format(url=run.url), folder, terminal=terminal.stream)
    terminal.wait_for("0/8 fits")
    follower.send_signal(signal.SIGINT)
    follower.communicate()
    assert follower.returncode == 130
    return terminal.close()


def test_a_run_is_resumed_followed_and_stopped(
    cluster: LocalCluster,
    client: Client,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One that nobody drives goes on; Ctrl-C ends only the looking on."""
    del client
    own = grid(tmp_path, gate=str(tmp_path / "gate"))
    with DataStore(tmp_path) as home:
        folder = begun(own, X, y, open_store(tmp_path), home)
    run, at = SearchRun(folder), ["--scheduler", cluster.scheduler_address]
    log = tmp_path / "fits.log"
    note_state(folder, "interrupted", os.getpid())

    assert cli.main(["resume", run.url, *at]) == 0
    assert re.search(rf"{run.run_id} is (starting|running)", capsys.readouterr().out)
    wait_until(lambda: seen(log, "wait"))
    shown = shown_to_a_follower(run, tmp_path)
    assert "Search continues: 0 of 8 fits" in shown
    assert f"dask-hpsearch stop {run.url} ends the run with the results so far" in shown
    assert run.state == "running"

    assert cli.main(["stop", run.url]) == 0
    assert f"{run.run_id} was asked to stop" in capsys.readouterr().out
    assert cli.main(["attach", run.url]) == 1
    told = capsys.readouterr().out
    assert f"{run.run_id}: interrupted" in told
    assert f"dask-hpsearch resume {run.url} continues it" in told
    with pytest.raises(RunFailedError, match="before any candidate had finished"):
        run.result()

    (tmp_path / "gate").touch()
    assert cli.main(["resume", run.url, *at, "--max-time", "inf"]) == 0
    assert cli.main(["attach", run.url]) == 0
    assert f"{run.run_id}: finished\n8/8 fits" in capsys.readouterr().out


@pytest.mark.parametrize("number", ["0", "-1", "1.5", "many"])
def test_a_run_is_not_resumed_with_a_patience_that_means_nothing(
    finished: SearchRun, capsys: pytest.CaptureFixture[str], number: str
) -> None:
    """The way out is in the message; ``inf`` removes the limit."""
    with pytest.raises(SystemExit):
        cli.main(["resume", finished.url, f"--patience={number}"])

    message = f"must be a positive integer, got {number}"
    assert message in capsys.readouterr().err
    limits = ["--patience", "inf", "--stop-score", "0.9"]
    assert cli.main(["resume", finished.url, *limits]) == 0


def test_a_run_under_way_is_cancelled_and_not_deleted(
    cluster: LocalCluster,
    client: Client,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What it had finished stays in its journal."""
    own = grid(tmp_path, gate=str(tmp_path / "gate"))
    run = DaskSearchCV(own, client=client, store=tmp_path).submit(X, y)

    assert cli.main(["delete", run.url]) == 1
    assert "cancel() it first" in capsys.readouterr().err
    assert cli.main(["cancel", run.url]) == 0
    assert cli.main(["attach", run.url]) == 1
    assert f"{run.run_id}: cancelled" in capsys.readouterr().out


def test_gc_says_what_it_removed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing young goes."""
    with DataStore(tmp_path) as home:
        old = tmp_path / "data" / home.put("old", what="X").digest
        home.put("young", what="X")
    then = time.time() - 7200
    os.utime(old, (then, then))

    assert cli.main(["gc", str(tmp_path), "--older-than", "30"]) == 0

    expected = "removed 0 runs and 1 data files (0.0 MiB)\n"
    assert capsys.readouterr().out == expected
    assert cli.main(["gc", str(tmp_path / "no-such-store")]) == 0


def test_a_scheduler_that_does_not_answer_is_told(
    finished: SearchRun, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one line, with one that names the section of the manual."""
    assert cli.main(["resume", finished.url, "--scheduler", "nonsense"]) == 1

    told = capsys.readouterr().err
    assert told.startswith("dask-hpsearch: no Dask scheduler answers at 'nonsense'")
    assert told.count("\n") == 2
    assert paths.data_folder().exists()
