"""The parameter ``sampler`` of `DaskSearchCV`: who asks for the candidates of a search."""

from __future__ import annotations

import base64
import copy
import importlib.util
from typing import TYPE_CHECKING, Any

import cloudpickle

from dask_hpsearch import sklearn_adapter
from dask_hpsearch.exceptions import (
    MissingExtraError,
    UnpicklableError,
    UnsupportedSearchError,
)
from dask_hpsearch.extras import map_import_errors

if TYPE_CHECKING:
    from collections.abc import Mapping

SKOPT, TPE, GP = "skopt", "tpe", "gp"
_NAMED = {GP: "GPSampler"}
# By class, the package and how it is called.
_NEEDS = {"GPSampler": ("torch", "PyTorch"), "CmaEsSampler": ("cmaes", "cmaes")}
_PICKLE = "pickle"
_WHAT = "the sampler"


def check_sampler(search: Any, sampler: Any, *, bayes_async: bool | None) -> None:
    """Refuse a ``sampler`` that a search cannot have, or that cannot run here.

    Parameters
    ----------
    search : object
    sampler : str, optuna.samplers.BaseSampler or None
    bayes_async : bool or None
        As for `DaskSearchCV`.

    Raises
    ------
    ValueError
        If it is not a sampler, or ``bayes_async=False`` leaves the asking to skopt.
    UnsupportedSearchError
        If the search is not a BayesSearchCV.
    MissingExtraError
        If Optuna is not installed, or what the sampler needs; also the sampler of the
        study of an OptunaSearchCV.
    """
    check_needs(getattr(getattr(search, "study", None), "sampler", None))
    if sampler is None:
        return
    names = SKOPT, TPE, GP
    if sampler not in names if isinstance(sampler, str) else not _is_sampler(sampler):
        msg = (
            "sampler must be 'skopt', 'tpe', 'gp' or a sampler of Optuna "
            f"(optuna.samplers), got {sampler!r}"
        )
        raise ValueError(msg)
    if not sklearn_adapter.is_bayes(search):
        raise UnsupportedSearchError(_only_bayes(search, sampler))
    if sampler == SKOPT:
        return
    if bayes_async is False:
        msg = (
            f"sampler={sampler!r} needs bayes_async=True, got False: skopt's own loop asks "
            "skopt; leave out bayes_async"
        )
        raise ValueError(msg)
    with map_import_errors(f"sampler={sampler!r}"):
        import optuna  # noqa: F401 (whether it is there)
    check_needs(sampler)


def check_needs(sampler: Any) -> None:
    """Refuse a sampler of Optuna without the package that it needs, before a search begins.

    Optuna itself imports the package when the sampler chooses its first parameters.

    Raises
    ------
    MissingExtraError
        Names the package.
    """
    for kind, (package, distribution) in _NEEDS.items():
        if _is_kind(sampler, kind) and importlib.util.find_spec(package) is None:
            msg = (
                f"Optuna's {kind} needs the package {package!r}, which is not installed: "
                f"install {distribution} where the search is driven, or use Optuna's "
                "TPESampler"
            )
            raise MissingExtraError(msg, name=package)


def sampler_for(sampler: Any, seed: int) -> Any:
    """Return an Optuna sampler that draws for one space.

    Parameters
    ----------
    sampler : "tpe", "gp", or optuna.samplers.BaseSampler
        An object is copied, so that every search with it draws the same.
    seed : int
        For those given by name.
    """
    from optuna.samplers import GPSampler, TPESampler

    if sampler == TPE:
        return TPESampler(seed=seed)
    if sampler == GP:
        return GPSampler(seed=seed)
    return copy.deepcopy(sampler)


def to_manifest(sampler: Any) -> Any:
    """Return a ``sampler`` as JSON values.

    Raises
    ------
    UnpicklableError
        If it is an object that cannot be pickled.
    """
    if sampler is None or isinstance(sampler, str):
        return sampler
    try:
        content = cloudpickle.dumps(sampler, protocol=5)
    except Exception as error:
        raise UnpicklableError.of(_WHAT, error) from error
    return {
        "class": type(sampler).__name__,
        _PICKLE: base64.b64encode(content).decode("ascii"),
    }


def from_manifest(stored: Any) -> Any:
    """Return the ``sampler`` of a manifest, whose signature is checked already."""
    if not isinstance(stored, dict):
        return stored
    return cloudpickle.loads(base64.b64decode(_content_of(stored)))


def _content_of(stored: Mapping[str, Any]) -> str:
    return str(stored[_PICKLE])


def _is_sampler(sampler: Any) -> bool:
    has_method = callable(getattr(sampler, "sample_independent", None))
    return has_method and not isinstance(sampler, type)


def _is_kind(sampler: Any, kind: str) -> bool:
    """Whether a sampler is of a class of Optuna, or leaves the choice to one that is."""
    if isinstance(sampler, str):
        return _NAMED.get(sampler) == kind
    if any(base.__name__ == kind for base in type(sampler).__mro__):
        return True
    inner = getattr(sampler, "_base_sampler", None)  # of a PartialFixedSampler
    return inner is not None and _is_kind(inner, kind)


def _only_bayes(search: Any, sampler: Any) -> str:
    kind = type(search).__name__
    if kind == "OptunaSearchCV":
        way = "give its study the sampler, study=optuna.create_study(sampler=...)"
    else:
        way = "use BayesSearchCV, or leave sampler out"
    return (
        f"sampler={sampler!r} chooses the candidates of a BayesSearchCV, and {kind} has a "
        f"way of its own: {way}"
    )
