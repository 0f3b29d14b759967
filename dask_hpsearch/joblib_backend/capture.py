"""The first fit that scikit-learn hands over, taken without running any."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from dask_hpsearch.sklearn_adapter import FitCall


class CapturedFit(Exception):  # noqa: N818 (no error: it leaves a call of scikit-learn's)
    """Ends a call whose first fit was captured.

    Attributes
    ----------
    call : FitCall or None
        None if it is no fit that can be taken apart.
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
        """Take the first fit; it, and any after it, is never run."""
        if not self._taken:
            self._taken, self.call = True, call
            # Raised while joblib hands tasks over, it would leave some for later calls.
            call_soon(lambda: deliver(self))
