"""What keeps a champion safe: in a folder, in memory, and in a bucket that fails at times."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from dask_hpsearch import (
    champion_card,
    champion_history,
    load_champion,
    promote,
)
from dask_hpsearch.exceptions import StoreError, UntrustedObjectError
from dask_hpsearch.models.champion_folder import ChampionFolder
from dask_hpsearch.models.champions import NewVersion
from dask_hpsearch.models.signed_version import Trust, pickled
from dask_hpsearch.security.signing import user_key
from dask_hpsearch.stores import open_store
from tests.gcs.faults import Fault
from tests.gcs.held import held_by, names_in, put
from tests.models.contenders import X, guess, y
from tests.processes import ROOT, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.gcs.proxy import Proxy

FEW: dict[str, Any] = {"n_resamples": 100}
KINDS = ["memory", "file", "gs"]
RACE = """
import sys
sys.path.insert(0, {root!r})
from dask_hpsearch import promote
from tests.models.contenders import X, guess, y

model = guess(float(sys.argv[2]))
print("ready", flush=True)
sys.stdin.readline()
print(promote(model, X, y, to=sys.argv[1], n_resamples=100).promoted)
"""


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A new model, in a store of the test's kind."""
    kind = request.param
    if kind == "gs":
        bucket = request.getfixturevalue("gcs_bucket")
        return f"gs://{bucket}/{tmp_path.name}/churn"
    return (
        f"memory://{tmp_path.name}/churn"
        if kind == "memory"
        else str(tmp_path / "churn")
    )


@dataclass
class EndsAfter:
    """A store under which the process ends after a number of objects."""

    store: Any
    left: int
    made: list[str] = field(default_factory=list)

    def create(self, name: str, content: bytes) -> bool:
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        self.made.append(name)
        return bool(self.store.create(name, content))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)


def new_version(right: float, champions: ChampionFolder) -> NewVersion:
    """Return a version that has the card of the champion."""
    version = champions.current()
    assert version is not None
    pointer = champions.pointer(version, Trust())
    card = pointer.card(lambda name: champions.read(pointer, name))
    return NewVersion(model=pickled(guess(right)), card=card, fitted=guess(right))


@pytest.mark.parametrize("url", KINDS, indirect=True)
class TestAnyStore:
    """What holds wherever champions are."""

    def test_of_two_that_follow_one_champion_one_wins(self, url: str) -> None:
        """The other one leaves nothing."""
        promote(guess(0.6), X, y, to=url)
        champions = ChampionFolder.open(url)
        first, second = (new_version(right, champions) for right in (0.7, 0.8))

        assert champions.replace(1, first) == 2
        before = champions.store.list()
        assert champions.replace(1, second) is None

        assert champions.store.list() == before
        assert load_champion(url).right == 0.7

    def test_a_champion_that_was_replaced_meanwhile_is_met_again(
        self, url: str
    ) -> None:
        """By the comparison with the new one, which may be better or worse."""
        promote(guess(0.5), X, y, to=url)
        rivals: dict[float, float] = {}

        def scoring(model: Any, rows: Any, target: Any) -> float:
            if model.right in rivals:  # the champion: another process replaces it now
                promote(guess(rivals.pop(model.right)), X, y, to=url, **FEW)
            return float(np.mean(model.predict(rows) == target))

        def challenge(right: float) -> Any:
            return promote(guess(right), X, y, to=url, scoring=scoring, **FEW)

        rivals[0.5] = 0.6
        good = challenge(0.7)
        assert (good.promoted, good.version) == (True, 3)
        assert good.scores["champion"] == pytest.approx(0.6)

        rivals[0.7] = 0.9
        late = challenge(0.8)
        assert (late.promoted, late.version) == (False, 4)
        assert late.scores["champion"] == pytest.approx(0.9)
        assert [card.replaced for card in champion_history(url)] == [None, 1, 2, 3]

    def test_of_many_threads_the_best_model_wins(self, url: str) -> None:
        """Each champion has replaced the one before it, and was better."""
        rights = [0.5, 0.6, 0.7, 0.8, 0.9]

        def challenge(right: float) -> bool:
            return promote(guess(right), X, y, to=url, **FEW).promoted

        with ThreadPoolExecutor(len(rights)) as threads:
            promoted = list(threads.map(challenge, rights))

        check_history(url, best=0.9)
        assert sum(promoted) == len(champion_history(url))

    @pytest.mark.parametrize("n_objects", [0, 1, 2, 3])
    def test_an_end_between_the_writes_leaves_the_old_champion(
        self, url: str, n_objects: int
    ) -> None:
        """The pointer comes last; what is left over harms no later promotion."""
        promote(guess(0.6), X, y, to=url)
        champions = ChampionFolder.open(url)
        ends: Any = EndsAfter(champions.store, n_objects)

        with pytest.raises(KeyboardInterrupt):
            ChampionFolder(ends).replace(1, new_version(0.9, champions))

        assert len(ends.made) == n_objects
        assert load_champion(url).right == 0.6
        assert [card.version for card in champion_history(url)] == [1]
        assert promote(guess(0.8), X, y, to=url, **FEW).version == 2
        assert load_champion(url).right == 0.8


def check_history(url: str, *, best: float) -> None:
    """Check that no promotion was lost: each card follows the one before."""
    cards = champion_history(url)
    assert [card.version for card in cards] == list(range(1, len(cards) + 1))
    assert [card.replaced for card in cards] == [None, *range(1, len(cards))]
    scores = [card.scores["challenger"] for card in cards]
    assert scores == sorted(scores, key=float)
    assert [card.scores["champion"] for card in cards][1:] == scores[:-1]
    assert load_champion(url).right == best
    # Nothing of those that lost is left.
    folders = {one.name.split("/")[1] for one in open_store(url).list("versions/")}
    assert len(folders) == len(cards)


@pytest.mark.parametrize("url", ["file", "gs"], indirect=True)
@pytest.mark.parametrize("rights", [[0.8, 0.8, 0.8], [0.7, 0.9, 0.8]])
def test_of_processes_that_promote_at_once_none_is_lost(
    url: str, rights: list[float]
) -> None:
    """Of equal challengers exactly one wins; of others, the best one in the end."""
    promote(guess(0.5), X, y, to=url)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", RACE.format(root=str(ROOT)), url, str(right)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for right in rights
    ]
    for one in processes:
        assert one.stdout is not None
        assert one.stdout.readline() == "ready\n"
    for one in processes:
        assert one.stdin is not None
        one.stdin.write("go\n")
        one.stdin.flush()
    printed = [one.communicate(timeout=100)[0].strip() for one in processes]

    check_history(url, best=max(rights))
    if len(set(rights)) == 1:
        assert sorted(printed) == ["False", "False", "True"]


class Runs:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.close, (os.open(self.path, os.O_CREAT),)


def flip(path: Path) -> None:
    """Change the last byte."""
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def of(folder: Path, name: str) -> Path:
    """Return an object of version 2."""
    (found,) = (folder / "versions").glob(f"00000002-*/{name}")
    return found


def by_a_pickle(folder: Path) -> None:
    """Put a pickle where the model was."""
    path = folder / "ran"
    of(folder, "model.pkl").write_bytes(pickle.dumps(Runs(path)))
    path.unlink()  # pickling has made it


def by_the_earlier_model(folder: Path) -> None:
    """Put the model of version 1 there."""
    (earlier,) = (folder / "versions").glob("00000001-*/model.pkl")
    shutil.copy(earlier, of(folder, "model.pkl"))


def by_the_earlier_pointer(folder: Path) -> None:
    """Let version 2 be version 1."""
    pointers = folder / "champions"
    shutil.copy(pointers / "00000001.json", pointers / "00000002.json")


def by_another_model(folder: Path) -> None:
    """Copy the champion of another model."""
    promote(guess(0.4), X, y, to=folder.parent / "fraud")
    promote(guess(0.9), X, y, to=folder.parent / "fraud", **FEW)
    shutil.rmtree(folder)
    shutil.copytree(folder.parent / "fraud", folder)


@pytest.mark.parametrize(
    "tamper",
    [
        lambda folder: flip(of(folder, "model.pkl")),
        by_a_pickle,
        by_the_earlier_model,
        by_the_earlier_pointer,
        by_another_model,
        lambda folder: flip(folder / "champions" / "00000002.json"),
        lambda folder: (folder / "champions" / "00000002.json").write_text("{}"),
    ],
    ids=["model", "pickle", "old model", "old pointer", "other", "pointer", "empty"],
)
def test_a_tampered_champion_is_refused(
    tamper: Callable[[Path], object], tmp_path: Path
) -> None:
    """Before it is unpickled; promote does not replace it by itself."""
    url = tmp_path / "churn"
    promote(guess(0.6), X, y, to=url)
    promote(guess(0.7), X, y, to=url, **FEW)
    tamper(url)
    before = sorted(path.name for path in url.rglob("*"))

    with pytest.raises(UntrustedObjectError):
        load_champion(url)
    with pytest.raises(UntrustedObjectError) as refused:
        promote(guess(0.9), X, y, to=url, **FEW)

    assert "Nothing was promoted" in "".join(refused.value.__notes__)
    assert sorted(path.name for path in url.rglob("*")) == before
    assert not (url / "ran").exists()
    assert promote(guess(0.9), X, y, to=url, min_gain=-np.inf, **FEW).version == 3
    assert load_champion(url).right == 0.9


def test_a_tampered_card_is_refused(tmp_path: Path) -> None:
    """The model itself is as it was."""
    url = tmp_path / "churn"
    promote(guess(0.6), X, y, to=url)
    promote(guess(0.7), X, y, to=url, **FEW)
    card = of(url, "card.json")
    card.write_text(card.read_text().replace("0.7", "0.9"))

    with pytest.raises(UntrustedObjectError, match="was altered after it was promoted"):
        champion_card(url)
    assert load_champion(url).right == 0.7


def test_a_champion_of_another_user_needs_their_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which the error, and the result of promote, name."""
    url = tmp_path / "churn"
    theirs = promote(guess(0.6), X, y, to=url).signed_by
    assert theirs == user_key().public
    monkeypatch.setenv("DASK_HPSEARCH_HOME", str(tmp_path / "another user"))

    with pytest.raises(UntrustedObjectError, match=rf"another key \({theirs}\)"):
        load_champion(url)
    with pytest.raises(UntrustedObjectError, match="signed_by="):
        promote(guess(0.8), X, y, to=url)
    assert load_champion(url, signed_by=theirs).right == 0.6
    assert load_champion(url, trust=True).right == 0.6
    kept = promote(guess(0.5), X, y, to=url, signed_by=theirs, **FEW)
    assert (kept.promoted, kept.signed_by) == (False, theirs)
    ours = promote(guess(0.8), X, y, to=url, signed_by=theirs, **FEW)
    assert ours.signed_by == user_key().public != theirs
    assert load_champion(url).right == 0.8


# --- a bucket that fails at times -------------------------------------------------------


@pytest.mark.parametrize(
    "faults",
    [
        [Fault("status", times=6)],
        [Fault("lose", kinds=("upload",), times=3)],
        [Fault("lose", kinds=("upload",), name="champions/00000002", times=1)],
        [Fault("flip", kinds=("download",), times=1)],
        [Fault("cut", kinds=("download",), times=2)],
        [Fault("reset", times=4)],
    ],
    ids=["outage", "lost", "lost pointer", "flipped", "cut", "reset"],
)
def test_a_bucket_that_fails_for_a_while_changes_no_outcome(
    faults: list[Fault], gcs_bucket: str, faulty: Proxy, tmp_path: Path
) -> None:
    """A worse challenger loses, a better one wins, once."""
    url = f"gs://{gcs_bucket}/{tmp_path.name}/churn"
    promote(guess(0.6), X, y, to=url)
    faulty.faults.set(*faults)
    assert not promote(guess(0.5), X, y, to=url, **FEW).promoted
    faulty.faults.set(*faults)

    assert promote(guess(0.8), X, y, to=url, **FEW).version == 2

    faulty.faults.set(*faults)
    check_history(url, best=0.8)


def test_a_pointer_that_is_refused_leaves_the_champion(
    gcs_bucket: str, faulty: Proxy, tmp_path: Path
) -> None:
    """An account that may not write it gets an error; the version stays, without effect."""
    url = f"gs://{gcs_bucket}/{tmp_path.name}/churn"
    promote(guess(0.6), X, y, to=url)
    forbidden = Fault("status", kinds=("upload",), name="champions/", status=403)
    faulty.faults.set(forbidden)

    with pytest.raises(StoreError, match="not allowed to create"):
        promote(guess(0.8), X, y, to=url, **FEW)

    assert load_champion(url).right == 0.6
    assert promote(guess(0.8), X, y, to=url, **FEW).version == 2


def test_a_process_that_is_killed_between_the_writes_leaves_the_champion(
    gcs_bucket: str, faulty: Proxy, tmp_path: Path
) -> None:
    """All objects of its version are there, the pointer is not."""
    url = f"gs://{gcs_bucket}/{tmp_path.name}/churn"
    promote(guess(0.6), X, y, to=url)
    faulty.faults.set(Fault("hang", kinds=("upload",), name="champions/", times=None))
    with subprocess.Popen(
        [sys.executable, "-c", RACE.format(root=str(ROOT)), url, "0.9"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    ) as process:
        assert process.stdin is not None
        process.stdin.write(b"go\n")
        process.stdin.flush()
        wait_until(faulty.faults.n_taken)
        process.kill()
    faulty.faults.set()

    written = [
        name
        for name in names_in(faulty.port, gcs_bucket)
        if f"{tmp_path.name}/churn/versions/00000002-" in name
    ]
    assert {name.rpartition("/")[2] for name in written} == {
        "card.json",
        "card.md",
        "model.pkl",
    }
    assert load_champion(url).right == 0.6
    assert promote(guess(0.8), X, y, to=url, **FEW).version == 2
    assert load_champion(url).right == 0.8


def test_a_tampered_champion_in_a_bucket_is_refused(
    gcs_bucket: str, gcs: Proxy, tmp_path: Path
) -> None:
    """Overwritten by an account that may write there."""
    url = f"gs://{gcs_bucket}/{tmp_path.name}/churn"
    promote(guess(0.6), X, y, to=url)
    (name,) = (
        name
        for name in names_in(gcs.port, gcs_bucket)
        if f"{tmp_path.name}/" in name and name.endswith("model.pkl")
    )
    content = held_by(gcs.port, gcs_bucket)[name]
    put(gcs.port, gcs_bucket, name, content[:-1] + bytes([content[-1] ^ 1]))

    with pytest.raises(UntrustedObjectError, match="was altered after it was promoted"):
        load_champion(url)
