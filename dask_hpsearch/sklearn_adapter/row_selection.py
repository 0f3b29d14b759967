"""Gives the fits of scikit-learn's fit-and-score function rows that were selected before.

Private parts of scikit-learn that are used:

* ``_validation._safe_split``, by which ``_fit_and_score`` selects the rows of the training
  set and then of the test set (stable since 0.19).
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from sklearn.model_selection import _validation
from sklearn.utils import get_tags

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Rows = tuple[Any, Any]  # of X and of y
    RowsOf = Callable[[Callable[[], tuple[Rows, Rows]]], tuple[Rows, Rows]]


@contextlib.contextmanager
def selecting_rows(
    data: tuple[Any, Any], indices: tuple[Any, Any], rows: RowsOf
) -> Iterator[None]:
    """Let one call of the fit-and-score function take its rows from elsewhere.

    Kernel matrices, whose columns are selected too, are left to scikit-learn, and so is any
    other selection while the block runs, such as that of a search within the fit.

    Parameters
    ----------
    data : tuple
        X and y, as the function gets them.
    indices : tuple
        The rows of the training set and of the test set.
    rows : callable
        Given a function that selects the rows of both sets, returns these rows, which the
        fit may write to.
    """
    original = _validation._safe_split  # noqa: SLF001 (see above)
    test_rows: list[Rows] = []

    def select(estimator: Any, X: Any, y: Any, chosen: Any, train: Any = None) -> Rows:
        if (
            X is data[0]
            and y is data[1]
            and not get_tags(estimator).input_tags.pairwise
        ):
            if chosen is indices[0] and train is None:
                train_rows, of_test = rows(
                    lambda: (
                        original(estimator, X, y, chosen),
                        original(estimator, X, y, indices[1], chosen),
                    )
                )
                test_rows[:] = [of_test]
                return train_rows
            if chosen is indices[1] and train is indices[0] and test_rows:
                return test_rows.pop()
        return original(estimator, X, y, chosen, train)  # type: ignore[no-any-return]

    _validation._safe_split = select  # noqa: SLF001
    try:
        yield
    finally:
        _validation._safe_split = original  # noqa: SLF001
