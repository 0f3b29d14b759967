"""Fits shared steps of pipelines once in each slot.

The candidates of a search often differ only in a pipeline's later steps: the earlier ones
are then fitted on the same rows with the same parameters again and again.
``Pipeline(memory=…)`` takes any object with a method ``cache``. `PipelineMemory` is such an
object; its key is the data, the split and the steps so far, so it hashes no array.

A step is kept only if fitting it again cannot change results: a step of scikit-learn whose
parameters are plain values, and which draws no random numbers or has an integer seed.
"""

from __future__ import annotations

import collections
import functools
import pickle
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import sklearn
from sklearn.base import BaseEstimator
from sklearn.compose import make_column_selector
from sklearn.feature_selection import chi2, f_classif, f_regression, r_regression
from sklearn.pipeline import Pipeline

from dask_hpsearch.sklearn_adapter import warning_filters

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

MIB = 2**20
MOST_BYTES = 256 * MIB
_LARGEST_PART = 4  # one result takes at most a quarter of the room
_MOST_STEPS = 1000
_LONGEST_IDENTITY = 16 * 1024
_PLAIN = (
    *(type(None), bool, int, float, complex, str, bytes, slice),
    *(np.generic, np.dtype, np.ufunc),
)
_EXACT_FUNCTIONS = (chi2, f_classif, f_regression, r_regression)


@dataclass(frozen=True, slots=True)
class _Fitted:
    transformed: Any
    step: bytes  # pickled, so that later changes of the step do not reach it
    nbytes: int
    rows: tuple[str, ...]


class PipelineCache:
    """The fitted steps of this slot; the least recently used are dropped first.

    Attributes
    ----------
    room : int
        Bytes that their transformed data may take.
    hits : int
        How often a step needed no fitting.
    """

    def __init__(self, room: int = MOST_BYTES) -> None:
        self.room = room
        self.hits = 0
        self._kept: collections.OrderedDict[Hashable, _Fitted]
        self._kept = collections.OrderedDict()
        self._nbytes = 0
        self._repeatable: dict[bytes, bool] = {}

    def attach(self, estimator: Any, rows: tuple[str, ...]) -> None:
        """Give a pipeline a memory of steps that were fitted on the same rows.

        Parameters
        ----------
        estimator : estimator
            Anything; only a `Pipeline` without a memory of its own gets one.
        rows : tuple of str
            Digests of X, y and the split.
        """
        if type(estimator) is Pipeline and estimator.memory is None:
            estimator.memory = PipelineMemory(self, rows, estimator)

    def get(self, key: Hashable) -> tuple[Any, Any] | None:
        """Return copies of the transformed data and of the fitted step."""
        if key not in self._kept:
            return None
        self._kept.move_to_end(key)
        self.hits += 1
        found = self._kept[key]
        return _copied(found.transformed), pickle.loads(found.step)  # noqa: S301 (our own)

    def put(
        self, key: Hashable, rows: tuple[str, ...], transformed: Any, step: Any
    ) -> None:
        """Keep a fitted step and its transformed data, unless they are large."""
        nbytes = _nbytes(transformed)
        most = self.room // _LARGEST_PART
        if nbytes is None or nbytes > most:
            return
        pickled = _pickled(step)
        if pickled is None or nbytes + len(pickled) > most:
            return
        nbytes += len(pickled)
        self._kept[key] = _Fitted(_copied(transformed), pickled, nbytes, rows)
        self._nbytes += nbytes
        while self._nbytes > self.room:
            self._nbytes -= self._kept.popitem(last=False)[1].nbytes

    def forget(self, digest: str) -> None:
        """Drop the steps that were fitted on data, or rows of a split, no longer used."""
        for key, found in list(self._kept.items()):
            if digest in found.rows:
                self._nbytes -= self._kept.pop(key).nbytes

    def identity(self, step: Any) -> bytes | None:
        """Return the identity of an unfitted step; None if it may not be kept."""
        identity = _pickled(step)
        if identity is None or len(identity) > _LONGEST_IDENTITY:
            return None  # keys are not counted as room
        if identity not in self._repeatable:
            if len(self._repeatable) >= _MOST_STEPS:
                self._repeatable.clear()
            self._repeatable[identity] = is_repeatable(step)
        return identity if self._repeatable[identity] else None


class PipelineMemory:
    """The ``memory`` of one pipeline, for its next fit alone.

    Parameters
    ----------
    cache : PipelineCache
    rows : tuple of str
        Digests of the data that the first step gets.
    pipeline : Pipeline
        Loses the memory as soon as that fit has begun: a scorer may fit the pipeline, or
        a clone of it, on other rows.
    """

    def __init__(
        self, cache: PipelineCache, rows: tuple[str, ...], pipeline: Pipeline
    ) -> None:
        self._cache, self._rows = cache, rows
        self._pipeline = pipeline
        self._so_far: Hashable = None

    def cache(self, function: Callable[..., Any], **_options: Any) -> Any:
        """Wrap scikit-learn's function that fits a step; called as a fit begins."""
        self._pipeline.memory = None
        surroundings = _surroundings()
        if surroundings is not None:
            self._so_far = self._rows, surroundings
        return functools.partial(self._fit_transform, function)

    def _fit_transform(
        self, function: Callable[..., Any], step: Any, X: Any, y: Any, **others: Any
    ) -> Any:
        """Fit a step to the data and transform it, or recall both."""
        identity = None
        if self._so_far is not None and not _has_options(others):
            identity = self._cache.identity(step)
        if identity is None:  # the input of later steps is then unknown too
            self._so_far = None
            return function(step, X, y, **others)
        key = self._so_far = (self._so_far, identity)
        known = self._cache.get(key)
        if known is not None:
            return known
        with _Silence() as silence:
            transformed, fitted = function(step, X, y, **others)
        if silence.held and not _is_part_of(transformed, X):
            self._cache.put(key, self._rows, transformed, fitted)
        return transformed, fitted


def is_repeatable(step: Any) -> bool:
    """Whether fitting a step again on the same data surely gives the same result.

    Parameters
    ----------
    step : estimator
        Not fitted.
    """
    if not isinstance(step, BaseEstimator) or not _is_of_sklearn(type(step)):
        return False
    parameters = step.get_params(deep=False)
    return all(_is_settled(name, value) for name, value in parameters.items())


def _is_settled(name: str, value: Any) -> bool:
    """Whether a parameter of a step involves neither chance nor a user's code."""
    if name == "random_state":
        return isinstance(value, int | np.integer) and not isinstance(value, bool)
    if name.startswith("copy") and value is False:  # it writes to its input
        return False
    parts = _parts(value)
    if parts is not None:
        return all(_is_settled("", part) for part in parts)
    return _is_plain(value) or is_repeatable(value)


def _parts(value: Any) -> list[Any] | None:
    if isinstance(value, list | tuple | set | frozenset):
        return list(value)
    if isinstance(value, make_column_selector):
        value = vars(value)
    if isinstance(value, dict):
        return [*value, *value.values()]
    return None


def _is_plain(value: Any) -> bool:
    if isinstance(value, type):
        return value in {bool, int, float} or issubclass(value, np.generic)
    if isinstance(value, np.ndarray):
        return not value.dtype.hasobject
    exact = any(value is function for function in _EXACT_FUNCTIONS)
    return exact or isinstance(value, _PLAIN)


def _is_of_sklearn(kind: type) -> bool:
    return kind.__module__.startswith("sklearn.")


def _has_options(others: dict[str, Any]) -> bool:
    """Whether a step gets metadata or weights, or is to print its time."""
    params = others.get("params") or {}
    return (
        any(params.values())
        or others.get("weight") is not None
        or others.get("message") is not None
    )


def _nbytes(transformed: Any) -> int | None:
    """Return the size of data that can be copied exactly; None for any other.

    The memory order must be the same too: sums in another order differ in their last
    digits.
    """
    if type(transformed) is np.ndarray:
        whole = transformed.flags.forc and not transformed.dtype.hasobject
        return int(transformed.nbytes) if whole else None
    parts = [getattr(transformed, name, None) for name in ("data", "indices", "indptr")]
    if all(type(part) is np.ndarray for part in parts):  # CSR, CSC
        return sum(int(part.nbytes) for part in parts if part is not None)
    return None


def _copied(transformed: Any) -> Any:
    if isinstance(transformed, np.ndarray):
        return transformed.copy(order="K")
    return transformed.copy()


def _is_part_of(transformed: Any, X: Any) -> bool:
    """Whether a step returned its own input, perhaps changed."""
    if transformed is X:
        return True
    output, given = _array_of(transformed), _array_of(X)
    if output is None or given is None:
        return False
    return bool(np.may_share_memory(output, given))


def _array_of(data: Any) -> np.ndarray | None:
    """Return an array, or the values of a sparse matrix."""
    values = data if isinstance(data, np.ndarray) else getattr(data, "data", None)
    return values if isinstance(values, np.ndarray) else None


def _surroundings() -> Hashable | None:
    """Return the settings that can change the result of a step.

    They are scikit-learn's configuration, such as "transform_output", and the warning
    filters, which may turn a warning into an error. None if they have no hash.
    """
    found = tuple(sklearn.get_config().items()), warning_filters.current()
    try:
        hash(found)
    except TypeError:
        return None
    return found


def _pickled(step: Any) -> bytes | None:
    """Pickle a step; None if its parameters cannot be pickled."""
    try:
        return pickle.dumps(step, protocol=5)
    except Exception:  # noqa: BLE001
        return None


class _Silence:
    """Notes whether there was a warning: a step that warns is not kept, to warn again."""

    def __enter__(self) -> Self:
        self.held = True
        self._show = show = warnings.showwarning

        def note(*args: Any, **options: Any) -> None:
            self.held = False
            show(*args, **options)

        warnings.showwarning = note
        return self

    def __exit__(self, *_: object) -> None:
        warnings.showwarning = self._show
