"""Find the first difference between two fitted objects, times apart."""

from __future__ import annotations

import re
import types
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

TIME = re.compile(r"(mean|std)_(fit|score)_time|refit_time_")
NAMED = type | types.FunctionType | types.BuiltinFunctionType | np.ufunc
PLAIN = str | bytes | int | complex | set | frozenset | np.dtype


def difference(left: object, right: object) -> str | None:
    """Tell where two objects differ in type, dtype, mask, order or value.

    Objects are taken apart the way pickle does it, so everything that would
    be written to disk is compared. Times have to be there, finite and not
    negative, and may differ.

    Returns
    -------
    str or None
        The path to the first difference and both values; None when equal.
    """
    return _Walk().compare(left, right, "")


class _Walk:
    """One comparison: remembers which pairs it has seen (cycles, sharing)."""

    def __init__(self) -> None:
        self.seen: set[tuple[int, int]] = set()
        self.alive: list[object] = []  # an id is only unique while its object lives

    def compare(self, left: Any, right: Any, path: str) -> str | None:
        pair = (id(left), id(right))
        if left is right or pair in self.seen:
            return None
        self.seen.add(pair)
        self.alive += [left, right]
        if type(left) is not type(right):
            return f"{path}: {left!r} is a {type(left)}, {right!r} a {type(right)}"
        return self.same_type(left, right, path)

    def same_type(self, left: Any, right: Any, path: str) -> str | None:  # noqa: C901, PLR0911 (one case a line)
        match left:
            case np.ma.MaskedArray():
                return self.masked(left, right, path)
            case np.ndarray() | np.generic():
                return self.array(np.asarray(left), np.asarray(right), path)
            case pd.DataFrame() | pd.Series() | pd.Index():
                return _unless(_frames_equal(left, right), left, right, path)
            case dict() if type(left) is dict:
                return self.mapping(left, right, path)
            case list() | tuple():
                return self.sequence(left, right, path)
            case float():
                equal = left == right or (np.isnan(left) and np.isnan(right))
                return _unless(equal, left, right, path)
            case types.GeneratorType():
                return None  # has no content to compare
            case np.random.RandomState() if np.random.mtrand._rand in (left, right):
                return None  # numpy's global state is no part of a search
            case _ if isinstance(left, NAMED):
                return _unless(_name(left) == _name(right), left, right, path)
            case _ if isinstance(left, PLAIN):
                return _unless(left == right, left, right, path)
            case _ if sparse.issparse(left):
                return self.array(left.toarray(), right.toarray(), path)
        path = f"{path}<{type(left).__name__}>"
        return self.compare(_taken_apart(left), _taken_apart(right), path)

    def masked(self, left: Any, right: Any, path: str) -> str | None:
        masks = np.ma.getmaskarray(left), np.ma.getmaskarray(right)
        return self.array(*masks, f"{path}.mask") or self.array(
            left.compressed(), right.compressed(), path
        )

    def array(self, left: Any, right: Any, path: str) -> str | None:
        if (left.dtype, left.shape) != (right.dtype, right.shape):
            return f"{path}: {left.dtype}{left.shape} and {right.dtype}{right.shape}"
        if left.dtype.kind == "O":
            return self.sequence(left.ravel().tolist(), right.ravel().tolist(), path)
        equal = np.array_equal(left, right, equal_nan=left.dtype.kind in "fc")
        return _unless(equal, left, right, path)

    def mapping(self, left: Any, right: Any, path: str) -> str | None:
        if found := self.sequence(list(left), list(right), f"{path}.keys"):
            return found
        for key, one, other in zip(left, left.values(), right.values(), strict=True):
            here = f"{path}[{key!r}]"
            if isinstance(key, str) and TIME.fullmatch(key):
                found = _no_times(one, here) or _no_times(other, here)
            else:
                found = self.compare(one, other, here)
            if found:
                return found
        return None

    def sequence(self, left: Any, right: Any, path: str) -> str | None:
        if len(left) != len(right):
            return f"{path}: {left!r} and {right!r} differ in length"
        for index, (one, other) in enumerate(zip(left, right, strict=True)):
            if found := self.compare(one, other, f"{path}[{index}]"):
                return found
        return None


def _taken_apart(instance: Any) -> object:
    parts = instance.__reduce_ex__(4)
    if isinstance(parts, str):  # pickled by name
        return parts
    return [list(part) if hasattr(part, "__next__") else part for part in parts]


def _no_times(values: Any, path: str) -> str | None:
    array = np.asarray(values)
    fine = array.dtype.kind == "f" and np.isfinite(array).all() and (array >= 0).all()
    return None if fine else f"{path}: no times: {values!r}"


def _frames_equal(left: Any, right: Any) -> bool:
    if isinstance(left, pd.DataFrame) and not left.dtypes.equals(right.dtypes):
        return False
    return bool(left.equals(right))


def _name(named: Any) -> tuple[str | None, str]:
    return getattr(named, "__module__", None), named.__name__


def _unless(equal: object, left: Any, right: Any, path: str) -> str | None:
    return None if equal else f"{path}: {left!r:.500} and {right!r:.500}"
