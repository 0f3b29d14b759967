"""Values remembered by identity."""

from __future__ import annotations

import gc
import weakref

from dask_hpsearch.identity import IdentityMemo


class Thing:
    """Equal to any other, and not hashable."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


def test_equal_objects_have_values_of_their_own() -> None:
    """What counts is which object it is."""
    memo: IdentityMemo[str] = IdentityMemo()
    one, other = Thing(), Thing()

    memo.put(one, value="one")

    assert memo.get(one) == "one"
    assert memo.get(other) is None
    assert memo.get(other, default="none") == "none"


def test_several_objects_are_one_key_in_their_order() -> None:
    """A pair (train, test) is not (test, train)."""
    memo: IdentityMemo[int] = IdentityMemo()
    train, test = Thing(), Thing()

    assert memo.put(train, test, value=1) == 1

    assert memo.get(train, test) == 1
    assert memo.get(test, train) is None
    assert list(memo.values()) == [1]


def test_objects_are_kept_as_long_as_their_values() -> None:
    """The id of an object that is gone would be given to another."""
    memo: IdentityMemo[int] = IdentityMemo()
    thing = Thing()
    alive = weakref.ref(thing)
    memo.put(thing, value=1)

    del thing
    gc.collect()
    assert alive() is not None
    assert len(memo) == 1

    memo.clear()
    gc.collect()
    assert alive() is None
    assert len(memo) == 0
