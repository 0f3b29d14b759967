"""How long Google's services are waited for, and what is asked again meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from google.api_core import exceptions
from google.api_core.retry import Retry
from google.auth.exceptions import TransportError

# An answer that may have been lost on its way. A quota that is used up is no such thing.
LOST = (
    exceptions.ServiceUnavailable,
    exceptions.DeadlineExceeded,
    exceptions.InternalServerError,
    TransportError,
)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for answers.

    Attributes
    ----------
    call_s : float
        For the answer to one request.
    deadline_s : float
        For a request with its repetitions, and for the end of an operation.
    first_delay_s, longest_delay_s : float
        Before a repetition; doubled each time, and drawn at random below that.
    """

    call_s: float = 30.0
    deadline_s: float = 120.0
    first_delay_s: float = 0.25
    longest_delay_s: float = 8.0

    @property
    def reading(self) -> dict[str, Any]:
        """Options of a request that changes nothing, or the same thing once: repeated."""
        retry = Retry(
            predicate=lambda error: isinstance(error, LOST),
            initial=self.first_delay_s,
            maximum=self.longest_delay_s,
            multiplier=2,
            timeout=self.deadline_s,
        )
        return {"retry": retry, "timeout": self.call_s}

    @property
    def once(self) -> dict[str, Any]:
        """Options of a request that must not be repeated blindly."""
        return {"retry": None, "timeout": self.call_s}
