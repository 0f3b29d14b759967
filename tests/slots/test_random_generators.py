from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pytest
from distributed import Client, LocalCluster
from scipy.stats import uniform
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import GridSearchCV

from dask_hpsearch import DaskSearchCV, local_cluster
from dask_hpsearch.slots.plugin import slot_pids
from tests.estimators import flowers
from tests.processes import ROOT, is_alive, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator


def _temporary_name() -> str:
    with tempfile.NamedTemporaryFile() as file:
        return Path(file.name).name


X, y = flowers()
DRAWS = {
    "numpy": np.random.random,
    "python": random.random,
    "default_rng": lambda: np.random.default_rng().random(),
    "scipy": lambda: float(uniform.rvs()),
    "temporary file": _temporary_name,
    "uuid4": lambda: uuid.uuid4().hex,
}
# Prints the states of all generators that a forkserver would have, in itself and in two
# processes forked from it.
FORKS = """
import importlib, json, os, random, sys
import numpy as np
from dask_hpsearch.slots.forkserver import PRELOADED
from dask_hpsearch.slots.random_generators import find_generators, reseed

for module in (*PRELOADED, *sys.argv[1:]):
    importlib.import_module(module)
found = [one for one in find_generators() if not isinstance(one, random.SystemRandom)]

def report():
    draws = [one.randbytes(8).hex() if isinstance(one, random.Random) else one.bytes(8).hex()
             for one in found]
    print(json.dumps(draws), flush=True)

for _ in range(2):
    if os.fork() == 0:
        reseed(found)
        report()
        os._exit(0)
    os.wait()
report()
"""
PRELOADED_LATER = """
import random
import numpy as np

GLOBAL = np.random.RandomState()
HELD = {"one": np.random.default_rng(), "other": np.random.Generator(np.random.Philox())}
OWN = random.Random()

def sample(rng=np.random.Generator(np.random.SFC64())):
    return rng.random()
"""


class Draw(ClassifierMixin, BaseEstimator):
    """Notes what it draws, then kills its process the first time if it is to crash."""

    def __init__(self, number: int = 0, *, folder: str, crashes: tuple[int, ...] = ()):
        self.number = number
        self.folder = folder
        self.crashes = crashes

    def fit(self, X: Any, y: Any) -> Self:
        self.classes_ = np.unique(y)
        drawn = {name: draw() for name, draw in DRAWS.items()} | {"pid": os.getpid()}
        path = Path(self.folder) / uuid.uuid4().hex
        path.write_text(json.dumps(drawn), encoding="ascii")
        crashed = Path(self.folder).with_suffix(f".crashed-{self.number}")
        if self.number in self.crashes and not crashed.exists():
            crashed.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self

    def predict(self, X: Any) -> Any:
        return np.zeros(len(X), int)


@pytest.fixture
def cluster() -> Iterator[LocalCluster]:
    """Two workers of two slots each, which may be killed."""
    with local_cluster(2, 2, dashboard_address=":0") as cluster:
        yield cluster


def test_unseeded_fits_draw_their_own_numbers(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    """Every slot, new slot, worker, search and retry has numbers of its own."""
    folder = tmp_path / "draws"
    folder.mkdir()
    crashes = 3, 60, 71
    with Client(cluster, set_as_default=False) as client:
        client.wait_for_workers(2)

        def search(numbers: range) -> None:
            draw = Draw(folder=str(folder), crashes=crashes)
            grid = GridSearchCV(draw, {"number": numbers}, cv=2, refit=False)
            DaskSearchCV(grid, client=client).fit(X, y)

        search(range(50))
        slots = [pid for pids in client.run(slot_pids).values() for pid in pids]
        for pid in slots[:2]:
            os.kill(pid, signal.SIGKILL)
        worker = min(client.run(os.getpid).values())
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: not is_alive(worker))
        client.wait_for_workers(2)
        search(range(50, 100))

    drawn = [json.loads(path.read_text("ascii")) for path in folder.iterdir()]
    assert len(drawn) >= 200 + len(crashes)
    assert len({one["pid"] for one in drawn}) > 4
    for name in DRAWS:
        assert len({one[name] for one in drawn}) == len(drawn), name


def test_generators_that_a_fork_copies_are_seeded_anew(tmp_path: Path) -> None:
    """Also those of libraries that forkservers may import some day.

    None of them has the same state in two interpreters: a library that seeds one on
    purpose would have to keep its state.
    """
    (tmp_path / "preloaded_later.py").write_text(PRELOADED_LATER, encoding="ascii")
    run = [sys.executable, "-c", FORKS, "preloaded_later"]
    path = os.pathsep.join([str(ROOT), str(tmp_path)])

    drawn = [
        json.loads(line)
        for _ in range(2)
        for line in subprocess.check_output(
            run, env=os.environ | {"PYTHONPATH": path}, text=True
        ).splitlines()
    ]

    assert len(drawn) == 6
    for one in zip(*(drawn[:3]), strict=True):
        assert len(set(one)) == 3
    assert len(set(drawn[2])) == len(set(drawn[5])) >= 8
    assert not set(drawn[2]) & set(drawn[5])
