"""Sends warning filters to other processes, which may lack some of the categories.

scikit-learn passes the caller's warning filters to every parallel call. Their categories
may be from packages that are not installed elsewhere: IPython adds filters for its own. So
each filter is pickled by itself. A process that cannot load one leaves it out, since no
code in that process can warn in that category.
"""

from __future__ import annotations

import contextlib
import functools
import pickle
import sys
import warnings
from typing import TYPE_CHECKING, Any

import cloudpickle

if TYPE_CHECKING:
    from collections.abc import Iterable

# Means "no filter"; scikit-learn's wrapper takes an empty list for a mistake.
_NO_FILTERS = [("default", None, Warning, None, 0)]
_SETS_KEPT = 16


def current() -> tuple[Any, ...]:
    """Return the warning filters of this thread."""
    of_context = getattr(warnings, "_get_filters", None)  # Python 3.14's
    return tuple(warnings.filters if of_context is None else of_context())


def encode(filters: Iterable[Any]) -> bytes:
    """Pickle filters so that each can be loaded without the others.

    Parameters
    ----------
    filters : iterable of tuple
        As in ``warnings.filters``.
    """
    filters = tuple(filters)
    try:
        return _encode(filters)
    except TypeError:  # something in it has no hash
        return _encode.__wrapped__(filters)


@functools.lru_cache(_SETS_KEPT)
def _encode(filters: tuple[Any, ...]) -> bytes:
    parts: list[Any] = []
    for one in filters:
        with contextlib.suppress(
            Exception
        ):  # a filter that cannot be pickled is left out
            parts.append(one if _is_standard(one) else cloudpickle.dumps(one))
    return pickle.dumps(parts, protocol=5)


def _is_standard(one: tuple[Any, ...]) -> bool:
    """Whether the category of a filter is built in."""
    return getattr(one[2], "__module__", None) == "builtins"


def decode(payload: bytes) -> list[Any]:
    """Load the filters whose categories exist in this process."""
    return list(_decoded(payload, tuple(sys.path)))


@functools.lru_cache(_SETS_KEPT)
def _decoded(payload: bytes, path: tuple[str, ...]) -> list[Any]:
    """Load filters; ``path`` is a key of the cache, as new modules change it."""
    del path
    parts: list[Any] = pickle.loads(payload)  # noqa: S301 (sent by the client)
    found = []
    for part in parts:
        if not isinstance(part, bytes):
            found.append(part)
            continue
        with contextlib.suppress(Exception):  # an import may raise anything
            found.append(pickle.loads(part))  # noqa: S301
    return found or (_NO_FILTERS if parts else [])
