"""Kills a part of a running search at a random moment, and goes on.

Twenty cases, four for each part, one of them in a bucket; ten more are slow. Each has a
seed of its own, its name.
"""

from __future__ import annotations

import os
import pickle
import random
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV, StratifiedKFold

from dask_hpsearch import DaskSearchCV, SearchRun
from dask_hpsearch.exceptions import ClientClosedError
from dask_hpsearch.slots.plugin import slot_pids
from tests.estimators import Deed, flowers, seen
from tests.oracle.structure import difference
from tests.processes import script, wait_until
from tests.runs.deployment import Deployment, deployed
from tests.runs.kills import driver_of, fit_in_thread, kill, store_at

if TYPE_CHECKING:
    from concurrent.futures import Future


X, y = flowers()
# Where a run is, and which of its moments.
MOMENTS = [
    *(("file", moment) for moment in range(3)),
    ("gs", 0),
    *(pytest.param(one, marks=pytest.mark.slow) for one in (("file", 3), ("gs", 1))),
]
N_CANDIDATES, N_SPLITS = 100, 2
FIT_S = 0.04
UNFLUSHED_S = 2.0
NOTEBOOK = """
import pickle, sys
from distributed import Client
from dask_hpsearch import DaskSearchCV

search, X, y = pickle.load(open("search.pkl", "rb"))
client = Client({address!r}, set_as_default=False)
DaskSearchCV(search, client=client, store={store!r}).fit(X, y)
"""
# By the data that a fit sees: its split.
SPLITS = {
    zlib.crc32(X[train].tobytes()): split
    for split, (train, _) in enumerate(StratifiedKFold(N_SPLITS).split(X, y))
}

Fit = tuple[int, int]


@dataclass
class Case:
    """One search, where it runs, and when it is disturbed."""

    folder: Path
    where: Deployment
    store: str
    chance: random.Random

    def __post_init__(self) -> None:
        self.log = str(self.folder / "fits.log")
        deed = Deed(log=self.log, seconds=FIT_S, client=os.getpid())
        space = {"number": list(range(N_CANDIDATES))}
        self.search = GridSearchCV(deed, space, cv=N_SPLITS)

    def submit(self) -> SearchRun:
        own = DaskSearchCV(self.search, client=self.where.client, store=self.store)
        return own.submit(X, y)

    def fit(self) -> tuple[SearchRun, Future[DaskSearchCV]]:
        """Fit in a thread of this process."""
        own = DaskSearchCV(self.search, client=self.where.client, store=self.store)
        return fit_in_thread(own, X, y)

    def wait_for_the_moment(self) -> None:
        """Wait until some fits have ended, up to most of them."""
        number = self.chance.randrange(150)
        wait_until(lambda: lines_of(self.log) >= 2 * number)

    def check(
        self,
        result: Any,
        shown: set[Fit],
        killed_at: float,
        *,
        at_most: int = N_CANDIDATES * N_SPLITS,
    ) -> None:
        """Assert that the result is that of an undisturbed run, and what ran again.

        Parameters
        ----------
        result : object
            The fitted search.
        shown : set of (candidate, split)
            What the run showed as finished before.
        killed_at : float
        at_most : int
            Fits that may have run again.
        """
        assert difference(self.search.fit(X, y), result) is None
        begun = Counter(fits_of(seen(self.log, "start")))
        assert len(begun) == N_CANDIDATES * N_SPLITS
        again = {fit for fit, times in begun.items() if times > 1}
        assert len(again) <= at_most
        assert not again & shown
        before = [one for one in seen(self.log, "end") if one["t"] < killed_at]
        flushed = [one for one in before if one["t"] < killed_at - UNFLUSHED_S]
        assert not again & set(fits_of(flushed))


def lines_of(path: str) -> int:
    """Count a log's entries; a fit that has ended has two."""
    return Path(path).read_bytes().count(b"\n") if Path(path).exists() else 0


def fits_of(entries: list[dict[str, Any]]) -> list[Fit]:
    """Candidate and split of every entry; the refit has neither."""
    return [
        (entry["number"], SPLITS[entry["data"]])
        for entry in entries
        if entry["data"] in SPLITS
    ]


def shown_by(run: SearchRun) -> set[Fit]:
    """Fits that a run shows as finished."""
    table = run.trials()
    return {
        (int(row["candidate"]), split)
        for _, row in table.iterrows()
        for split in range(N_SPLITS)
        if np.isfinite(row.get(f"split{split}_test_score", np.nan))
    }


@pytest.fixture(params=MOMENTS, ids=lambda place: f"{place[0]}-{place[1]}")
def place(
    request: pytest.FixtureRequest, gcs_bucket: str, tmp_path: Path
) -> tuple[str, int]:
    """A store, and the number of a moment."""
    kind, moment = request.param
    return store_at(kind, tmp_path, gcs_bucket), moment


@pytest.fixture
def case(
    request: pytest.FixtureRequest,
    place: tuple[str, int],
    where: Deployment,
    tmp_path: Path,
) -> Case:
    """A search whose moment the seed decides."""
    store, _ = place
    return Case(tmp_path, where, store, random.Random(request.node.name))


def test_killing_a_slot_changes_nothing(case: Case) -> None:
    """The fit that it ran is tried once more, and no other."""
    run, found = case.fit()
    case.wait_for_the_moment()
    shown = shown_by(run)
    (slots,) = case.where.client.run(slot_pids).values()

    killed_at = kill(case.chance.choice(slots))

    case.check(found.result(60).search_, shown, killed_at, at_most=1)


def test_killing_a_worker_changes_nothing(case: Case) -> None:
    """Its fits run again elsewhere."""
    run, found = case.fit()
    case.wait_for_the_moment()
    shown = shown_by(run)

    killed_at = kill(case.where.worker_pid())

    case.check(found.result(60).search_, shown, killed_at)


def test_killing_the_driver_interrupts_the_run(case: Case) -> None:
    """Who attaches with a client goes on where the journal ends."""
    run = case.submit()
    case.wait_for_the_moment()
    shown = shown_by(run)

    killed_at = kill(driver_of(run))
    wait_until(lambda: run.state == "interrupted")
    again = SearchRun.attach(run.url, case.where.client)

    case.check(again.result(60), shown, killed_at)


def test_killing_a_notebook_interrupts_its_fit(case: Case) -> None:
    """The journal is the same as that of a run that was submitted."""
    content = pickle.dumps((case.search, X, y))
    (case.folder / "search.pkl").write_bytes(content)
    notebook = script(
        NOTEBOOK.format(address=case.where.address, store=case.store), case.folder
    )
    case.wait_for_the_moment()
    (run,) = SearchRun.list(case.store)
    shown = shown_by(run)

    killed_at = kill(notebook.pid)
    notebook.communicate()
    assert run.state == "interrupted"
    again = SearchRun.attach(run.url, case.where.client)

    case.check(again.result(60), shown, killed_at)


def test_losing_the_scheduler_interrupts_the_run(
    request: pytest.FixtureRequest,
    place: tuple[str, int],
    where: Deployment,
    tmp_path: Path,
) -> None:
    """With another scheduler it goes on."""
    store, moment = place
    with deployed(tmp_path) as first:
        case = Case(tmp_path, first, store, random.Random(request.node.name))
        run, found = case.fit() if moment % 2 else (case.submit(), None)
        case.wait_for_the_moment()
        shown = shown_by(run)

        killed_at = kill(first.scheduler.pid)
        wait_until(lambda: run.state.has_ended)

    assert run.state == "interrupted"
    if found is not None:
        with pytest.raises(ClientClosedError):
            found.result()
    again = SearchRun.attach(run.url, where.client)
    case.check(again.result(60), shown, killed_at)
