"""Rows of a split are selected once on a node, and are those that scikit-learn selects."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.linear_model import Ridge
from sklearn.model_selection import KFold
from sklearn.svm import SVC
from sklearn.utils.metaestimators import _safe_split

from dask_hpsearch.localfs.bundles import load
from dask_hpsearch.sklearn_adapter.row_selection import selecting_rows
from dask_hpsearch.slots import split_rows
from dask_hpsearch.slots.node_files import NodeFolder
from dask_hpsearch.slots.split_rows import NodeRows, Split, SplitRows
from tests.oracle.structure import difference
from tests.processes import held_bytes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

N_ROWS = 600
RNG = np.random.default_rng(0)
NUMBERS = RNG.normal(size=(N_ROWS, 8))
CLASSES = np.arange(N_ROWS) % 3


def frame() -> pd.DataFrame:
    """Return columns of several types."""
    table = pd.DataFrame(NUMBERS[:, :3], columns=["a", "b", "c"], index=range(5, 605))
    table["count"] = np.arange(N_ROWS, dtype=np.int16)
    table["kind"] = pd.Categorical([("u", "v", "w")[n % 3] for n in range(N_ROWS)])
    table["flag"] = pd.array([True, None] * (N_ROWS // 2), dtype="boolean")
    return table


DATA: dict[str, tuple[Any, Any]] = {
    "array": (NUMBERS, CLASSES),
    "array-in-columns": (np.asfortranarray(NUMBERS), CLASSES),
    "array-with-gaps": (NUMBERS[:, ::2], CLASSES),
    "array-backward": (NUMBERS[::-1], CLASSES),
    "single-precision": (NUMBERS.astype(np.float32), CLASSES.astype(np.int8)),
    "big-endian": (NUMBERS.astype(">f8"), CLASSES),
    "three-axes": (NUMBERS.reshape(N_ROWS, 4, 2), CLASSES),
    "records": (
        np.zeros(N_ROWS, dtype=[("a", "f8"), ("b", "i4")]),
        CLASSES,
    ),
    "dates": (NUMBERS.astype("datetime64[s]"), CLASSES),
    "labels": (NUMBERS, np.array(["no", "yes", "perhaps"])[CLASSES]),
    "no-y": (NUMBERS, None),
    "several-outputs": (NUMBERS, NUMBERS[:, :2]),
    "frame": (frame(), pd.Series(CLASSES, name="y", index=range(5, 605))),
    "frame-of-one-type": (frame()[["a", "b"]], CLASSES),
    "sparse-rows": (sp.csr_array(np.round(NUMBERS)), CLASSES),
    "sparse-columns": (sp.csc_matrix(np.round(NUMBERS)), CLASSES),
    "list": (list(range(N_ROWS)), list(CLASSES)),
}
FOLDS = next(KFold(5, shuffle=True, random_state=0).split(NUMBERS))
INDICES = {
    "numbers": FOLDS,
    "mask": tuple(np.isin(np.arange(N_ROWS), one) for one in FOLDS),
    "repeated": (np.array([3, 3, 3, 1, 2]), np.array([9, 0, 9])),
    "empty-test": (np.arange(5), np.arange(0)),
}


class Selecting:
    """Selects rows as scikit-learn does, and counts how often."""

    def __init__(
        self, data: tuple[Any, Any] = DATA["array"], indices: Any = FOLDS
    ) -> None:
        self.data, self.indices = data, indices
        self.n_calls = 0

    def __call__(self) -> Any:
        """Select the rows of both sets."""
        self.n_calls += 1
        train, test = self.indices
        return (
            _safe_split(Ridge(), *self.data, train),
            _safe_split(Ridge(), *self.data, test, train),
        )


def split_of(nbytes: int = 2**20, **changed: Any) -> Split:
    """Return a split of a search with many fits; small data are kept in the slot."""
    values: dict[str, Any] = {"n_fits": 50, "n_splits": 5}
    return Split(("X", "y", "split"), nbytes, **values | changed)


def slot_on(folder: Path, **changed: Any) -> SplitRows:
    """Return the rows of a slot on a node with this folder."""
    values: dict[str, Any] = {"limit_bytes": None, "search": "a", "code": ""}
    slot = SplitRows()
    slot.node = NodeRows.open(NodeFolder(folder, **values | changed))
    return slot


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder of a node's cache."""
    return tmp_path / "cache"


@pytest.mark.parametrize("nbytes", [1, 2**20], ids=["in-slot", "on-node"])
@pytest.mark.parametrize("indices", INDICES.values(), ids=INDICES)
@pytest.mark.parametrize("data", DATA.values(), ids=DATA)
def test_rows_are_those_that_scikit_learn_selects(
    data: tuple[Any, Any], indices: Any, nbytes: int, folder: Path
) -> None:
    """Values, types and order in memory are the same the first time and later."""
    slots = [slot_on(folder), slot_on(folder)]
    expected = Selecting(data, indices)()

    for slot in (slots[0], *slots):
        found = slot.rows(split_of(nbytes), Selecting(data, indices))
        assert difference(expected, found) is None
        for one, other in zip(arrays_of(expected), arrays_of(found), strict=True):
            assert one.strides == other.strides or one.size == 0
            assert one.flags.writeable == other.flags.writeable


def arrays_of(rows: Any) -> list[np.ndarray[Any, Any]]:
    """Return the arrays among the rows, and those that sparse matrices consist of."""
    found = []
    for one in (*rows[0], *rows[1]):
        if sp.issparse(one):
            found += [one.data, one.indices, one.indptr]
        elif isinstance(one, np.ndarray):
            found.append(one)
    return found


@pytest.mark.parametrize("nbytes", [1, 2**20], ids=["in-slot", "on-node"])
def test_a_fit_may_write_to_its_rows(nbytes: int, folder: Path) -> None:
    """No later fit sees it, and X is as it was."""
    slots = [slot_on(folder), slot_on(folder)]
    expected = Selecting()()

    for slot in (*slots, *slots):
        found = slot.rows(split_of(nbytes), Selecting())
        assert difference(expected, found) is None
        for one in arrays_of(found):
            one[:] = 0


def test_the_slots_of_a_node_select_rows_once(folder: Path) -> None:
    """Each split once, for all fits of all slots."""
    selecting = Selecting()
    for _ in range(3):
        slot = slot_on(folder)
        for _ in range(3):
            slot.rows(split_of(), selecting)

    assert selecting.n_calls == 1


def test_other_splits_and_data_have_rows_of_their_own(folder: Path) -> None:
    """Files are named by the digests of X, y and the split."""
    slot, selecting = slot_on(folder), Selecting()
    for digests in (("X", "y", "a"), ("X", "y", "b"), ("Z", "y", "a"), ("X", "z", "a")):
        slot.rows(Split(digests, 2**20, 9, 5), selecting)

    assert selecting.n_calls == 4


@pytest.mark.parametrize(
    "split",
    [split_of(n_fits=2), split_of(n_fits=None), split_of(nbytes=2**60)],
    ids=["few-fits", "unknown-fits", "too-large"],
)
def test_rows_that_do_not_repay_a_file_are_selected_each_time(
    split: Split, folder: Path
) -> None:
    """A few fits, a number that is not known, or more than the memory that is free."""
    slot, selecting = slot_on(folder), Selecting()
    for _ in range(3):
        slot.rows(split, selecting)

    assert selecting.n_calls == 3
    assert not list(folder.glob("rows-*"))


def test_objects_are_selected_each_time(folder: Path) -> None:
    """Loading thousands of them takes longer."""
    words = np.array([f"word {n}" for n in range(N_ROWS * 10)], object)
    slot = slot_on(folder)
    half = np.arange(0, len(words), 2)
    selecting = Selecting((words, CLASSES.repeat(10)), (half, half + 1))
    for _ in range(3):
        slot.rows(split_of(), selecting)

    assert selecting.n_calls == 3


def test_files_removed_to_make_room_are_made_again(folder: Path) -> None:
    """A map that a fit has keeps its content."""
    slot, selecting = slot_on(folder), Selecting()
    found = slot.rows(split_of(), selecting)
    for file in folder.glob("rows-*"):
        file.unlink()

    again = slot.rows(split_of(), selecting)

    assert difference(found, again) is None
    assert selecting.n_calls == 2


def test_a_full_cache_costs_nothing_but_the_copies(folder: Path) -> None:
    """Fits then select their rows as scikit-learn does."""
    slot, selecting = slot_on(folder, limit_bytes=5_000), Selecting()
    for _ in range(2):
        found = slot.rows(split_of(nbytes=1 + 2**18, n_splits=1), selecting)
        assert difference(selecting(), found) is None

    assert selecting.n_calls == 4


def test_a_folder_that_others_may_write_to_is_not_used(folder: Path) -> None:
    """Pickles in it could run any code."""
    folder.mkdir()
    folder.chmod(0o777)
    slot, selecting = slot_on(folder), Selecting()
    for _ in range(2):
        slot.rows(split_of(), selecting)

    assert selecting.n_calls == 2


@pytest.mark.parametrize("nbytes", [1, 2**20], ids=["in-slot", "on-node"])
def test_rows_of_data_no_longer_used_are_dropped(nbytes: int, folder: Path) -> None:
    """A slot forgets them with the data."""
    slot, selecting = slot_on(folder), Selecting()
    slot.rows(split_of(nbytes), selecting)
    slot.forget("X")
    slot.node = None

    slot.rows(split_of(nbytes), selecting)

    assert selecting.n_calls == 2


class TestInTheFitAndScoreFunction:
    """The function selects the rows of the training set, then those of the test set."""

    @staticmethod
    def rows(select: Callable[[], Any]) -> Any:
        """Return other rows than the selected ones, to tell them apart."""
        (X, y), (X_test, y_test) = select()
        return (X + 1, y), (X_test + 2, y_test)

    def test_both_selections_are_replaced_once(self) -> None:
        """In their order; a scorer or a search within a fit selects for itself."""
        from sklearn.model_selection import _validation

        data, (train, test) = DATA["array"], FOLDS
        original = _validation._safe_split
        with selecting_rows(data, FOLDS, self.rows):
            select = _validation._safe_split
            X_train, _ = select(Ridge(), *data, train)
            X_test, _ = select(Ridge(), *data, test, train)
            again, _ = select(Ridge(), *data, test, train)
            other, _ = select(Ridge(), data[0].copy(), data[1], train)

        np.testing.assert_array_equal(X_train, NUMBERS[train] + 1)
        np.testing.assert_array_equal(X_test, NUMBERS[test] + 2)
        np.testing.assert_array_equal(again, NUMBERS[test])
        np.testing.assert_array_equal(other, NUMBERS[train])
        assert _validation._safe_split is original

    def test_kernel_matrices_are_left_to_scikit_learn(self) -> None:
        """Their columns are selected too."""
        from sklearn.model_selection import _validation

        data = NUMBERS @ NUMBERS.T, CLASSES
        with selecting_rows(data, FOLDS, self.rows):
            select = _validation._safe_split
            found, _ = select(SVC(kernel="precomputed"), *data, FOLDS[0])

        np.testing.assert_array_equal(found, data[0][np.ix_(FOLDS[0], FOLDS[0])])

    def test_the_function_is_put_back_after_an_error(self) -> None:
        """A fit that raises leaves scikit-learn as it was."""
        from sklearn.model_selection import _validation

        original = _validation._safe_split
        with (
            pytest.raises(ZeroDivisionError),
            selecting_rows(DATA["array"], FOLDS, self.rows),
        ):
            raise ZeroDivisionError

        assert _validation._safe_split is original


def test_few_slots_of_a_node_select_rows_at_once(folder: Path) -> None:
    """Otherwise each of them would hold the rows of another split in memory."""
    n_slots = 3 * split_rows.SLOTS_SELECTING
    selecting, most = set[int](), 0
    lock = threading.Lock()

    def select_slowly(slot: int) -> Any:
        nonlocal most
        with lock:
            selecting.add(slot)
            most = max(most, len(selecting))
        time.sleep(0.05)
        with lock:
            selecting.discard(slot)
        return Selecting()()

    def rows_of(slot: int) -> Any:
        split = Split(("X", "y", f"split {slot}"), 2**20, n_fits=50, n_splits=5)
        return slot_on(folder).rows(split, lambda: select_slowly(slot))

    with ThreadPoolExecutor(n_slots) as pool:
        found = list(pool.map(rows_of, range(n_slots)))

    assert most <= split_rows.SLOTS_SELECTING
    assert all(difference(Selecting()(), one) is None for one in found)


def test_a_slot_holds_few_pages_of_the_data_while_it_selects(
    folder: Path, tmp_path: Path
) -> None:
    """It writes the rows, and would otherwise hold both."""
    path = tmp_path / "X.npy"
    np.save(path, np.ones((2000, 8192)))
    X = load(str(path))
    held = []

    def select() -> Any:
        parts = []
        for first in range(0, 2000, 200):
            parts.append(X[first : first + 200].copy())
            time.sleep(0.1)
            held.append(held_bytes(path))
        return np.concatenate(parts), np.zeros(2000)

    split = split_of(X.nbytes, data=(X,))
    rows = slot_on(folder).rows(split, select)

    np.testing.assert_array_equal(rows[0], np.asarray(X))
    assert max(held) < X.nbytes / 3


def test_no_page_of_the_data_is_held_after_selecting(
    folder: Path, tmp_path: Path
) -> None:
    """Small data, too."""
    path = tmp_path / "X.npy"
    np.save(path, np.ones((500, 1000)))
    X = load(str(path))
    held = []

    def select() -> Any:
        rows = X * 2
        held.append(held_bytes(path))
        return rows, np.zeros(500)

    slot_on(folder).rows(split_of(X.nbytes, data=(X,)), select)

    assert held_bytes(path) < held[0] / 2
