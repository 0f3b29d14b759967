"""Whether a pipeline step gives the same result each time, judged by its parameters.

For some steps the parameters guarantee this. For others only a fit can show it, which is
then watched (`fit_watch`). Some are known to differ, or to alter their input.
"""

from __future__ import annotations

import contextlib
import io
import pickle
from typing import Any

import cloudpickle
import numpy as np
from sklearn.base import BaseEstimator
from sklearn.compose import make_column_selector
from sklearn.feature_selection import chi2, f_classif, f_regression, r_regression

LONGEST_IDENTITY = 16 * 1024  # keys are not counted as room
_PLAIN = (
    *(type(None), bool, int, float, complex, str, bytes, slice),
    *(np.generic, np.dtype, np.ufunc),
)
_EXACT_FUNCTIONS = (chi2, f_classif, f_regression, r_regression)
# They have no ``random_state``, but may draw: with more than 200 rows, the solver of Isomap does.
_DRAWING_INSIDE = frozenset({"Isomap"})
# Packages whose code draws only from numpy's and Python's generators, and writes only to data
# that is passed for this purpose.
_KNOWN_PACKAGES = frozenset(
    {
        *("sklearn", "numpy", "scipy", "pandas"),
        *("builtins", "copyreg", "collections", "_codecs", "functools"),
    }
)


def identity_of(step: Any) -> bytes | None:
    """Return bytes that identify an unfitted step; None if it cannot be identified."""
    identity = _pickled(step)
    if identity is None or len(identity) > LONGEST_IDENTITY:
        return None
    return identity if identity == _pickled(step) else None


def may_be_repeatable(step: Any, identity: bytes) -> bool:
    """Whether a step may give the same result each time; its fit has to show it.

    Parameters
    ----------
    step : estimator
        Not fitted.
    identity : bytes
        Of this step.

    Returns
    -------
    bool
        False if it holds a random number generator, which a plain search advances from
        fit to fit, or if it may write to its input.
    """
    names = _names_in(identity)
    return names is not None and not (
        any(map(_is_generator, names)) or _writes_to_its_input(step)
    )


def is_known_code(identity: bytes) -> bool:
    """Whether all code that a step names belongs to scikit-learn or a package below it."""
    names = _names_in(identity)
    return names is not None and all(
        module.partition(".")[0] in _KNOWN_PACKAGES for module, _ in names
    )


def is_repeatable(step: Any) -> bool:
    """Whether fitting a step again on the same data is sure to give the same result.

    Parameters
    ----------
    step : estimator
        Not fitted.
    """
    if not isinstance(step, BaseEstimator) or not _is_of_sklearn(type(step)):
        return False
    if type(step).__name__ in _DRAWING_INSIDE:
        return False
    parameters = step.get_params(deep=False)
    return all(_is_settled(name, value) for name, value in parameters.items())


def _is_settled(name: str, value: Any) -> bool:
    """Whether a parameter excludes randomness and the user's own code."""
    if name == "random_state":
        return isinstance(value, int | np.integer) and not isinstance(value, bool)
    if _is_no_copy(name, value):
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


def _is_no_copy(name: str, value: Any) -> bool:
    """Whether a parameter lets a step write to its input."""
    return name.rpartition("__")[2].startswith("copy") and value is False


def _writes_to_its_input(step: Any) -> bool:
    try:
        parameters = step.get_params()
    except Exception:  # noqa: BLE001 (it is the user's)
        return False  # it is looked at
    return any(_is_no_copy(name, value) for name, value in parameters.items())


def _is_generator(name: tuple[str, str]) -> bool:
    module, attribute = name
    if module == "random":
        return True
    return module.startswith("numpy.random") or attribute.endswith("Random")


class _NamesUnpickler(pickle.Unpickler):
    """Notes the classes and functions that a pickle names."""

    def __init__(self, payload: bytes) -> None:
        super().__init__(io.BytesIO(payload))
        self.names: set[tuple[str, str]] = set()

    def find_class(self, module: str, name: str) -> Any:
        """Return a class or function by its name."""
        self.names.add((module, name))
        return super().find_class(module, name)


def _names_in(identity: bytes) -> set[tuple[str, str]] | None:
    unpickler = _NamesUnpickler(identity)
    try:
        unpickler.load()
    except Exception:  # noqa: BLE001 (it is the user's)
        return None
    return unpickler.names


def _pickled(step: Any) -> bytes | None:
    """Pickle a step, with the code of objects that have no module; None if that fails."""
    for dumps in (pickle.dumps, cloudpickle.dumps):
        with contextlib.suppress(Exception):  # it is the user's
            return bytes(dumps(step, protocol=5))
    return None
