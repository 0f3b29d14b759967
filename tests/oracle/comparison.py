"""Fit a search both ways, plain and through DaskSearchCV, and compare all of it."""

from __future__ import annotations

import copy
import pickle
import re
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np

from dask_hpsearch import DaskSearchCV
from tests.oracle.reader import answers
from tests.oracle.structure import difference

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    from distributed import Client

SEED = 7
# scikit-learn emits these inside a fit, so on the workers, where they are logged.
INSIDE_FITS = re.compile(r"Scoring failed\.")
FRAMES = re.compile(r"(Traceback \(most recent call last\):\n)(?:[ \t].*\n|\n)+")


@dataclass(slots=True)
class Outcome:
    """What a fit left: the error it raised, if any, and the warnings it gave."""

    error: tuple[type[BaseException], str] | None = None
    warnings: list[tuple[type[Warning], str]] = field(default_factory=list)


def fitted(search: Any, X: Any, y: Any, params: dict[str, Any]) -> Outcome:
    """Fit with numpy's global seed set; keep the error and the search's warnings."""
    outcome = Outcome()
    np.random.seed(SEED)  # noqa: NPY002 (the legacy global state is under test)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            search.fit(X, y, **params)
        except Exception as error:  # noqa: BLE001 (whatever it is, it is compared)
            outcome.error = (type(error), without_frames(str(error)))
    outcome.warnings = [
        (entry.category, without_frames(str(entry.message)))
        for entry in caught
        if not INSIDE_FITS.match(str(entry.message))
    ]
    return outcome


def without_frames(text: str) -> str:
    """Keep the errors a message quotes and drop the frames they went through."""
    return FRAMES.sub(r"\1", text)


def assert_same(expected: object, found: object) -> None:
    """Fail with the path to the first difference."""
    told = difference(expected, found)
    assert told is None, told


class Oracle:
    """Compares fits on one client with plain ones.

    Parameters
    ----------
    client : distributed.Client
        Where DaskSearchCV fits.
    reader : subprocess.Popen
        ``tests.oracle.reader``, running.
    folder : pathlib.Path
        Where pickles are handed over to the reader.
    """

    def __init__(
        self, client: Client, reader: subprocess.Popen[str], folder: Path
    ) -> None:
        self.client = client
        self.reader = reader
        self.folder = folder

    def check(
        self,
        make: Callable[[], Any],
        X: Any,
        y: Any = None,
        *,
        backend: str = "auto",
        **params: Any,
    ) -> DaskSearchCV:
        """Assert that both ways of fitting leave the same object.

        Parameters
        ----------
        make : callable
            Makes the search, each time from the same beginnings.
        X, y : array-like
            Data to fit; also what the fitted searches are asked about.
        backend : str
            DaskSearchCV's.
        **params
            Passed to ``fit``.

        Returns
        -------
        DaskSearchCV
            Fitted.
        """
        plain, ours, outcome = self.fit_both(make, X, y, backend, params)
        assert outcome.error is None, outcome.error
        assert_same(plain, ours.search_)
        expected = answers(plain, X, y)
        assert_same(expected, answers(ours.search_, X, y))
        assert_same(expected, answers(ours, X, y))
        if _pickles(plain):
            assert_same(expected, self.read_elsewhere(ours.search_, X, y))
        return ours

    def check_error(
        self,
        make: Callable[[], Any],
        X: Any,
        y: Any = None,
        *,
        match: str,
        **params: Any,
    ) -> None:
        """Assert that both ways of fitting raise the same error, and leave nothing."""
        _, ours, outcome = self.fit_both(make, X, y, "auto", params)
        assert outcome.error is not None, "the plain fit raised nothing"
        assert re.search(match, outcome.error[1]), outcome.error
        assert not hasattr(ours, "search_")

    def fit_both(
        self,
        make: Callable[[], Any],
        X: Any,
        y: Any,
        backend: str,
        params: dict[str, Any],
    ) -> tuple[Any, DaskSearchCV, Outcome]:
        """Fit both ways; errors, warnings and the user's own object are compared."""
        plain = make()
        with joblib.parallel_config(backend="sequential"):
            expected = fitted(plain, X, y, params)

        own = make()
        before, estimator = dict(vars(own)), copy.deepcopy(own.estimator)
        # Bayes without a barrier has candidates of its own; skopt's loop has skopt's.
        ours = DaskSearchCV(own, client=self.client, backend=backend, bayes_async=False)
        found = fitted(ours, X, y, params)

        assert_same(expected.error, found.error)
        assert_same(expected.warnings, found.warnings)
        assert ours.search is own
        assert list(vars(own)) == list(before)
        assert all(vars(own)[name] is value for name, value in before.items())
        assert_same(estimator, own.estimator)
        return plain, ours, expected

    def read_elsewhere(self, search: Any, X: Any, y: Any) -> object:
        """Load a fitted search where Dask cannot be imported; return its answers."""
        path = self.folder / "search.pkl"
        path.write_bytes(pickle.dumps((search, X, y)))
        assert self.reader.stdin is not None
        assert self.reader.stdout is not None
        self.reader.stdin.write(f"{path}\n")
        self.reader.stdin.flush()
        assert self.reader.stdout.readline() == "read\n"
        return pickle.loads(path.read_bytes())


def _pickles(search: Any) -> bool:
    """Whether a plain fit's search pickles at all (not with a generator as cv)."""
    try:
        pickle.dumps(search)
    except (TypeError, AttributeError, pickle.PicklingError):
        return False
    return True
