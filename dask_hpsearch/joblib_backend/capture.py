"""Captures the first fit that scikit-learn hands to joblib, without running it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from dask_hpsearch.sklearn_adapter import FitCall


class CapturedFit(Exception):  # noqa: N818 (not an error: it leaves a call of scikit-learn)
    """Ends an ``evaluate_candidates`` call whose first fit was captured.

    Attributes
    ----------
    call : FitCall or None
        None if the task is not a fit that `fit_call_of` recognises.
    """

    def __init__(self) -> None:
        super().__init__("the fit was captured")
        self.call: FitCall | None = None
        self._taken = False

    def take(
        self,
        call: FitCall | None,
        call_soon: Callable[[Callable[[], None]], None],
        deliver: Callable[[Any], None],
    ) -> None:
        """Take the first fit; neither it nor a later one is run."""
        if not self._taken:
            self._taken, self.call = True, call
            # If it were raised here, joblib would keep some tasks for later calls.
            call_soon(lambda: deliver(self))
