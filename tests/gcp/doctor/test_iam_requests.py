"""What doctor asks about access has only fields that Google's messages have."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from google.auth.credentials import AnonymousCredentials
from google.auth.transport.requests import AuthorizedSession
from google.protobuf.json_format import ParseError

from dask_hpsearch.gcp.doctor.doctor import examine
from dask_hpsearch.gcp.rest import GoogleRest
from tests.fakes.iam_requests import as_message
from tests.fakes.project import SERVICES, FakeProject, project_at
from tests.gcp.specs import spec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dask_hpsearch.gcp.rest import Response


@dataclass(frozen=True, slots=True)
class KeepingRest(GoogleRest):
    """Keeps what is posted."""

    posted: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)

    def post(self, service: str, path: str, body: Mapping[str, Any]) -> Response:
        """Keep a request, and send it."""
        self.posted.append((path, body))
        return GoogleRest.post(self, service, path, body)


def test_requests_about_access_are_googles_messages() -> None:
    """Each permission and each option is a field of the message of its method."""
    with (
        project_at(FakeProject()) as url,
        AuthorizedSession(AnonymousCredentials()) as session,
    ):
        rest = KeepingRest(session, dict.fromkeys(SERVICES, url))
        report = examine(spec(), rest=rest)

    messages = [as_message(path, body) for path, body in rest.posted]
    assert report.ok
    kinds = {type(one).__name__ for one in messages if one is not None}
    assert kinds == {"GetIamPolicyRequest", "TestIamPermissionsRequest"}
    for one in messages:
        if one is not None and hasattr(one, "permissions"):
            assert all(text.count(".") == 2 for text in one.permissions)


@pytest.mark.parametrize(
    "body", [{"permission": ["a.b.c"]}, {"permissions": "a.b.c"}, {"options": {}}]
)
def test_a_field_that_does_not_exist_is_found(body: dict[str, Any]) -> None:
    """The check would see it."""
    with pytest.raises(ParseError):
        as_message("/v3/projects/some-project:testIamPermissions", body)
