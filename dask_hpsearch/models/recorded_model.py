"""A fitted model whose predictions for one data set are computed once.

A bootstrap scores the same predictions hundreds of times, each time for other rows. A scorer
that calls nothing but the model's prediction methods gets the rows of the recorded
predictions; scikit-learn's own scorers are such.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Rows = NDArray[np.intp]

_METHODS = ("predict", "predict_proba", "predict_log_proba", "decision_function")


class RecordedModel:
    """Stands for a fitted model in a scorer; its X are numbers of rows.

    Parameters
    ----------
    model : object
        Fitted.
    X : array-like of shape (n_samples, n_features)
    """

    def __init__(self, model: Any, X: Any) -> None:
        self._model = model
        self._X = X
        self._predictions: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in {"_model", "_X", "_predictions"}:
            raise AttributeError(name)  # of a copy that is being made
        value = getattr(self._model, name)  # as the model has it: some lack methods
        return self._recorded(name) if name in _METHODS else value

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import get_tags

        return get_tags(self._model)

    def _recorded(self, method: str) -> Callable[[Rows], Any]:
        def predict(rows: Rows) -> Any:
            if method not in self._predictions:
                self._predictions[method] = getattr(self._model, method)(self._X)
            found = self._predictions[method]
            if isinstance(found, list):  # of several outputs
                return [one[rows] for one in found]
            return np.asarray(found)[rows]

        predict.__name__ = method  # scikit-learn reads it
        return predict
