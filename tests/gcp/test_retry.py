"""Options by which requests to Google's APIs are repeated, or not."""

from __future__ import annotations

import pytest
from google.api_core import exceptions

from dask_hpsearch.gcp.retry import TRANSIENT, with_retries, without_retries
from dask_hpsearch.stores.retry import Retry

RETRY = Retry(timeout=5, deadline=1, initial=0.001, maximum=0.002)


def test_a_busy_service_is_asked_again() -> None:
    """Until it responds."""
    responses = iter([exceptions.ServiceUnavailable("busy"), "done"])

    def request() -> str:
        found = next(responses)
        if isinstance(found, Exception):
            raise found
        return found

    assert with_retries(RETRY)["retry"](request)() == "done"


@pytest.mark.parametrize("kind", [exceptions.ResourceExhausted, exceptions.NotFound])
def test_a_refusal_is_not_repeated(kind: type[Exception]) -> None:
    """A quota does not grow by asking again."""
    calls = []

    def request() -> None:
        calls.append(1)
        message = "no"
        raise kind(message)

    with pytest.raises(kind):
        with_retries(RETRY)["retry"](request)()

    assert calls == [1]
    assert not issubclass(kind, TRANSIENT)


def test_a_request_that_must_not_be_repeated_is_sent_once() -> None:
    """Google's clients would repeat it by default."""
    assert without_retries(RETRY) == {"retry": None, "timeout": 5}
