from __future__ import annotations

import asyncio
import pickle
import sys
import threading
from typing import TYPE_CHECKING, Any, NoReturn, Self

import joblib
import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import GridSearchCV

from dask_hpsearch import DaskSearchCV
from dask_hpsearch.raised_errors import decode_error, encode_error, in_words
from dask_hpsearch.safe_text import message_of
from tests.estimators import flowers

if TYPE_CHECKING:
    from distributed import Client

X, y = flowers()


class Plain(BaseException):
    pass


class TwoArgumentsError(Exception):
    def __init__(self, what: str, where: str) -> None:
        super().__init__(f"{what} in {where}")
        self.where = where


class PrefixesError(ValueError):
    def __init__(self, text: str) -> None:
        super().__init__(f"prefix: {text}")


class Coded(SystemExit):
    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


class LockedError(ValueError):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


class NoTextError(ValueError):
    def __str__(self) -> str:
        raise RuntimeError


class NoReprError(ValueError):
    def __repr__(self) -> str:
        raise RuntimeError

    __str__ = __repr__


class NoPickleError(ValueError):
    def __reduce__(self) -> NoReturn:
        sys.exit("pickled")


class ExitsAsItLoadsError(ValueError):
    def __reduce__(self) -> Any:
        return sys.exit, ("loaded",)


class NoNotesError(ValueError):
    def add_note(self, note: str) -> None:
        raise RuntimeError


ERRORS = {
    "code": lambda: SystemExit(3),
    "no code": lambda: SystemExit(None),
    "message": lambda: SystemExit("the data is wrong"),
    "code of its own": lambda: Coded("the data is wrong", 4),
    "interrupt": lambda: KeyboardInterrupt("from a library"),
    "cancelled": lambda: asyncio.CancelledError("from a library"),
    "base": lambda: Plain("as test tools have it"),
    "group": lambda: BaseExceptionGroup("two", [ValueError("one"), SystemExit(2)]),
    "two arguments": lambda: TwoArgumentsError("a fault", "the data"),
    "argument changed": lambda: PrefixesError("text"),
    "unpicklable attribute": lambda: LockedError("held"),
    "unpicklable argument": lambda: ValueError("held", threading.Lock()),
    "text fails": lambda: NoTextError("text"),
    "repr fails": lambda: NoReprError("text"),
    "pickling exits": lambda: NoPickleError("text"),
    "loading exits": lambda: ExitsAsItLoadsError("text"),
    "notes fail": lambda: NoNotesError("text"),
}


def raise_error(kind: str) -> None:
    """Raise one of the errors."""
    error = ERRORS[kind]()
    raise error


class Raises(ClassifierMixin, BaseEstimator):
    def __init__(self, kind: str = "") -> None:
        self.kind = kind

    def fit(self, X: Any, y: Any) -> Self:
        self.classes_ = np.unique(y)
        if self.kind:
            raise_error(self.kind)
        return self

    def predict(self, X: Any) -> Any:
        return np.zeros(len(X), int)


def _check_same(found: BaseException, kind: str) -> None:
    expected = ERRORS[kind]()
    assert type(found) is type(expected)
    if kind != "unpicklable argument":  # its text names an address
        assert message_of(found) == message_of(expected)
    assert getattr(found, "code", None) == getattr(expected, "code", None)


@pytest.mark.parametrize("kind", ERRORS)
def test_what_a_fit_raises_arrives(kind: str, client: Client) -> None:
    """With type, text and code, as in a plain fit; nothing is taken for Ctrl-C."""
    search = GridSearchCV(
        Raises(), {"kind": ["", "", kind]}, cv=2, error_score="raise", refit=False
    )

    with pytest.raises(BaseException) as caught:
        DaskSearchCV(search, client=client).fit(X, y)

    _check_same(caught.value, kind)


@pytest.mark.parametrize("kind", ["code", "interrupt", "text fails", "pickling exits"])
def test_what_a_call_raises_arrives(kind: str, client: Client) -> None:
    """So it is with any other task of joblib's."""
    calls = [joblib.delayed(raise_error)(kind)] * 2

    with (
        pytest.raises(BaseException) as caught,
        joblib.parallel_config("dask_hpsearch", client=client),
    ):
        joblib.Parallel(n_jobs=2)(calls)

    _check_same(caught.value, kind)


def test_the_traceback_comes_along(client: Client) -> None:
    """As a note, with the line that raised."""
    search = GridSearchCV(Raises(), {"kind": ["code"]}, cv=2)

    with pytest.raises(SystemExit) as caught:
        DaskSearchCV(search, client=client).fit(X, y)

    assert "raise_error(self.kind)" in "".join(caught.value.__notes__)


def test_what_does_not_load_here_is_told_in_words() -> None:
    """Its class is in a module that only the workers have."""
    error = ValueError("the text")
    payload = encode_error(error).replace(b"ValueError", b"MissingErr")

    found = decode_error(payload, in_words(error))

    assert type(found) is RuntimeError
    assert "ValueError: the text" in str(found)


def test_an_error_of_a_class_that_cannot_be_pickled_is_told_in_words() -> None:
    """Nothing of the class can be sent."""

    class HeldError(ValueError):
        lock = threading.Lock()

    found = pickle.loads(encode_error(HeldError("the text")))

    assert type(found) is RuntimeError
    assert "HeldError: the text" in str(found)
