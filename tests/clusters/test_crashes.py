"""Workers whose whole container ends for lack of memory, with the fit that took it."""

from __future__ import annotations

import functools
import os
import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest
from distributed import Client
from sklearn.exceptions import FitFailedWarning
from sklearn.model_selection import GridSearchCV

from dask_hpsearch import DaskSearchCV
from dask_hpsearch.clusters import tls
from dask_hpsearch.slots.oom_record import Load, OOMRecord, read_oom_record
from tests.clusters.test_draining import worker
from tests.clusters.test_tls import scheduler
from tests.estimators import Deed, flowers, times_begun
from tests.processes import WAIT_S, wait_until

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    Run = Callable[[], AbstractContextManager[subprocess.Popen[bytes]]]

X, y = flowers()


def crash_twice(run: Run, box: Path, done: threading.Event) -> None:
    """Kill a worker twice when it is short of memory; let the third one be."""
    for _ in range(2):
        with run() as process:
            wait_until(lambda: not box.exists())  # the note before was read
            wait_until(box.exists)
            process.kill()
            process.wait()
    with run():
        done.wait(WAIT_S)


def test_the_fit_that_took_the_memory_is_named(tmp_path: Path) -> None:
    """It fails at its second crash, and all others have their results.

    As a kernel does that ends all processes of a container at once, both times.
    """
    certificates, log = tmp_path / "certificates", tmp_path / "log"
    tls.issue("own").save(certificates)
    deed = Deed(log=str(log), client=os.getpid())
    space = [{"number": [0, 1]}, {"number": [2], "deed": ["memory"]}, {"number": [3]}]
    search = GridSearchCV(deed, space, cv=[(np.arange(60), np.arange(60, 90))])
    search.set_params(error_score=-1.0)
    box = tmp_path / "a" / "short-of-memory.json"
    (tmp_path / "a").mkdir()
    done = threading.Event()

    with (
        scheduler(certificates) as address,
        Client(address, security=tls.client_security(certificates)) as client,
    ):
        run = functools.partial(worker, client, certificates, tmp_path, "a")
        crashing = threading.Thread(target=crash_twice, args=(run, box, done))
        crashing.start()
        try:
            with pytest.warns(FitFailedWarning) as caught:
                found = DaskSearchCV(search, client=client).fit(X, y)
        finally:
            done.set()
            crashing.join()

    scores = found.cv_results_["split0_test_score"]
    assert [score == -1.0 for score in scores] == [False, False, True, False]
    said = "".join(str(one.message) for one in caught)
    assert "FitMemoryError" in said
    assert "'deed': 'memory', 'number': 2} on split 0" in said
    assert "ended, probably for lack of memory, while the fit used" in said
    assert "more than any other fit there; it was tried twice" in said
    begun = {fit[:2]: times for fit, times in times_begun(log).items()}
    assert begun[2, "memory"] in (2, 3)  # the third worker may begin it before it tells


def test_the_largest_is_noted_while_memory_is_short(tmp_path: Path) -> None:
    """And taken out once; with memory to spare there is nothing to tell."""
    box = OOMRecord(tmp_path)
    large, small = Load("t", 1, 2**30), Load("t", 2, 2**20)

    box.note([small, large])
    assert read_oom_record(tmp_path) == large
    assert read_oom_record(tmp_path) is None
    box.note([small])
    box.note([])
    assert read_oom_record(tmp_path) is None
    box.note([small])
    box.clear()
    assert read_oom_record(tmp_path) is None


def test_what_was_cut_in_writing_is_no_note(tmp_path: Path) -> None:
    """A crash may come at any moment."""
    (tmp_path / "short-of-memory.json").write_text('{"topic": "t"')

    assert read_oom_record(tmp_path) is None
