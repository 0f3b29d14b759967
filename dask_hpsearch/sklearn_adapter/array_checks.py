"""Spares plain arrays the question whether they are data frames.

scikit-learn asks narwhals several times in each fit and score. For an array, whose answer
is known, that takes 0.5 ms of a fit of 5 ms: narwhals looks for attributes by
`inspect.getattr_static`, and asks its plugins.

Parts of other packages that are used:

* ``narwhals.stable.v2.dependencies.is_into_dataframe`` and ``is_into_series``, which
  scikit-learn looks up in that module for each question;
* ``sklearn.utils.validation.nw``, by which it does so (since scikit-learn 1.9).
"""

from __future__ import annotations

import functools
import importlib
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils import validation

if TYPE_CHECKING:
    from collections.abc import Callable

_MODULE = "narwhals.stable.v2.dependencies"
_QUESTIONS = ("is_into_dataframe", "is_into_series")
_MARK = "__answered_for_arrays__"


def answer_for_arrays() -> None:
    """Let narwhals answer at once that a plain array is no frame; this process only.

    Nothing changes if a plugin of narwhals takes arrays for frames, or if scikit-learn does not
    use narwhals.
    """
    if not hasattr(validation, "nw"):
        return
    module: Any = importlib.import_module(_MODULE)
    array = np.empty((1, 1))
    for name in _QUESTIONS:
        own = getattr(module, name, None)
        if own is None or hasattr(own, _MARK) or own(array):
            continue
        setattr(module, name, _answering(own))


def _answering(own: Callable[[Any], bool]) -> Callable[[Any], bool]:
    @functools.wraps(own)
    def is_into(value: Any) -> bool:
        return type(value) is not np.ndarray and own(value)

    setattr(is_into, _MARK, True)
    return is_into
