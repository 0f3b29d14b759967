"""A snapshot is the same in every bit, and nothing of it is shared."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from dask_hpsearch.slots.snapshots import exact_snapshot, snapshot_of
from tests.oracle.structure import difference

GIVEN = np.arange(60.0).reshape(10, 6)


def copied(value: Any, step: Any = None, *, given: Any = GIVEN) -> Any:
    """Return what a snapshot that was kept gives back."""
    snapshot = snapshot_of(value, step, given=given)
    assert snapshot is not None
    return snapshot.kept().load()


@pytest.mark.parametrize(
    "array",
    [
        GIVEN.copy(),
        np.asfortranarray(GIVEN),
        GIVEN.copy()[:, ::2],
        GIVEN.copy()[::-1],
        GIVEN.copy()[2:5, 1:4],
        np.arange(30, dtype=np.int16)[::3],
        GIVEN.copy().reshape(5, 2, 6).transpose(2, 0, 1),
        np.array([["a", "b"], ["c", "d"]], object),
        np.array(["2020-01-01"], "datetime64[D]"),
        np.zeros((0, 3)),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}{array.strides}",
)
def test_arrays_lie_in_memory_as_they_did(array: Any) -> None:
    """With all their strides, and writable."""
    found, step = copied(array, {"components": np.ones((4, 6))[:, ::2]})

    assert found.dtype == array.dtype
    assert found.size == 0 or found.strides == array.strides
    assert step["components"].strides == (48, 16)
    np.testing.assert_array_equal(found, array)
    found[...] = array[::-1]


def test_an_array_that_cannot_be_written_to_stays_so() -> None:
    """Its copy is read-only too."""
    for array in (np.arange(4.0), np.arange(8.0)[::2]):
        array.flags.writeable = False
        assert not copied(array)[0].flags.writeable


def test_copies_have_nothing_in_common() -> None:
    """What is written to one does not reach the next, nor the original."""
    original = np.zeros(5)
    snapshot = snapshot_of(original, None, given=GIVEN)
    assert snapshot is not None
    kept = snapshot.kept()
    original += 1

    kept.load()[0].fill(7)

    np.testing.assert_array_equal(kept.load()[0], np.zeros(5))


@pytest.mark.parametrize(
    "value",
    [
        sparse.random_array((9, 4), density=0.4, format="csr", rng=0),
        sparse.csc_matrix(np.eye(4)),
        sparse.coo_array(np.eye(4)),
        pd.DataFrame({"a": [1, 2], "b": ["x", None], "c": [1.5, np.nan]}, index=[4, 3]),
        pd.DataFrame({"a": pd.Categorical(["u", "v"]), "b": pd.array([1, None])}),
        pd.DataFrame(np.asfortranarray(GIVEN)),
        pd.Series([1, 2], name="s"),
        ["some", "text"],
    ],
    ids=["csr", "csc", "coo", "mixed", "extension", "numbers", "series", "list"],
)
def test_sparse_matrices_and_frames_are_the_same(value: Any) -> None:
    """All that tells them from others comes back."""
    found, _ = copied(value)

    assert difference(value, found) is None
    if isinstance(value, pd.DataFrame):
        for name in value.columns:
            ours, theirs = found[name].to_numpy(), value[name].to_numpy()
            assert ours.strides == theirs.strides
    if sparse.issparse(value) and hasattr(value, "has_sorted_indices"):
        assert found.has_sorted_indices == value.has_sorted_indices


class Holder:
    """A fitted step that keeps something."""

    def __init__(self, kept: Any) -> None:
        self.kept = kept


def test_an_output_that_the_step_keeps_is_kept_once() -> None:
    """The very array stays one; two views of it would not show each other's changes."""
    output = GIVEN + 1

    found, step = copied(output, Holder(output))

    assert step.kept is found
    assert snapshot_of(output, Holder(output[:3]), given=GIVEN) is None
    assert snapshot_of(output, Holder(output[:]), given=GIVEN) is None
    assert snapshot_of(output, Holder(output[::2, ::2]), given=GIVEN) is None


def test_the_input_may_be_kept_but_not_given_back() -> None:
    """What a later step writes to it would show in the training data."""
    assert snapshot_of(GIVEN + 1, Holder(GIVEN), given=GIVEN) is not None
    for output in (GIVEN, GIVEN[:, :2], GIVEN.T, GIVEN[::2, ::2]):
        assert snapshot_of(output, None, given=GIVEN) is None


@pytest.mark.parametrize(
    "value",
    [
        np.array([[1], {2}], object),
        [[1], [2]],
        np.ma.masked_array([1, 2], [True, False]),
        np.arange(1000.0)[::100],
        object(),
        print,
    ],
    ids=["sets", "lists", "masked", "gaps", "object", "function"],
)
def test_what_cannot_be_copied_exactly_has_no_snapshot(value: Any) -> None:
    """Values that can change, unknown types, arrays with large gaps."""
    assert snapshot_of(value, None, given=GIVEN) is None


def test_a_step_that_cannot_be_pickled_has_no_snapshot() -> None:
    """It may hold an open file."""
    step = Holder(iter([1]))
    step.kept = (n for n in [1])

    assert snapshot_of(GIVEN + 1, step, given=GIVEN) is None


def test_the_data_of_a_dropped_snapshot_are_freed_at_once() -> None:
    """They may be large, and the garbage collector may come much later."""
    array = np.zeros(1000)
    freed = weakref.ref(array)
    gc.disable()
    try:
        snapshot = exact_snapshot(array)
        del array, snapshot
        assert freed() is None
    finally:
        gc.enable()
