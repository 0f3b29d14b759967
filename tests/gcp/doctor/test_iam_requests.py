"""What doctor asks about access has only fields that Google's messages have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

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
    from requests import Response


class KeepingSession(AuthorizedSession):
    """Keeps what is posted."""

    def __init__(self) -> None:
        super().__init__(AnonymousCredentials())
        self.posted: list[tuple[str, dict[str, Any]]] = []

    def request(self, method: str, url: str, **options: Any) -> Response:
        """Keep a request, and send it."""
        if method == "POST":
            self.posted.append((urlsplit(url).path, options["json"]))
        return super().request(method, url, **options)


def test_requests_about_access_are_googles_messages() -> None:
    """Each permission and each option is a field of the message of its method."""
    with project_at(FakeProject()) as url, KeepingSession() as session:
        rest = GoogleRest(session, dict.fromkeys(SERVICES, url))
        report = examine(spec(), rest=rest)

    messages = [as_message(path, body) for path, body in session.posted]
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


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        (
            "POST",
            "/v3/projects/some-project:setIamPolicy",
            {"policy": {"bindings": [{"role": "r", "member": "user:a"}]}},
        ),
        ("PUT", "/storage/v1/b/some-bucket/iam", {"binding": []}),
        ("POST", "/v1/projects/some-project/roles", {"role_id": "a", "role": {}}),
        (
            "PATCH",
            "/v1/projects/some-project/roles/a",
            {"includedPermission": ["a.b.c"]},
        ),
    ],
)
def test_a_change_with_a_wrong_field_is_refused(
    method: str, path: str, body: dict[str, Any]
) -> None:
    """So every binding and role that a test makes is a request that Google can read."""
    status, answer = FakeProject().answer(method, path, {}, body)

    assert status == 400
    assert "Invalid JSON payload" in answer["error"]["message"]
