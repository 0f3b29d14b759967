"""Requests about access, as REST has them, read as Google's own messages: strictly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.iam.v1 import iam_policy_pb2, policy_pb2
from google.protobuf import json_format

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

_MESSAGES: Mapping[str, Any] = {
    "getIamPolicy": iam_policy_pb2.GetIamPolicyRequest,
    "setIamPolicy": iam_policy_pb2.SetIamPolicyRequest,
    "testIamPermissions": iam_policy_pb2.TestIamPermissionsRequest,
}


# Of a custom role, in google.iam.admin.v1; no client with these messages is installed.
_ROLE_FIELDS = frozenset({"title", "description", "includedPermissions", "stage"})


def check(method: str, path: str, body: Mapping[str, Any]) -> None:
    """Refuse a request that has a field which its message has not.

    Raises
    ------
    ParseError
    """
    if method == "PUT" and path.endswith("/iam"):  # the policy of a bucket
        json_format.ParseDict(body, policy_pb2.Policy())
    elif method == "POST" and path.endswith("/roles"):
        _check_fields(body, {"roleId", "role"})
        _check_fields(body["role"], _ROLE_FIELDS)
    elif method == "PATCH":
        _check_fields(body, _ROLE_FIELDS)
    elif method == "POST":
        as_message(path, body)


def _check_fields(body: Mapping[str, Any], known: Collection[str]) -> None:
    for name in body:
        if name not in known:
            message = f'Unknown name "{name}": Cannot find field.'
            raise json_format.ParseError(message)


def as_message(path: str, body: Mapping[str, Any]) -> Any:
    """Return a request as its message; None if it is not about access.

    Raises
    ------
    ParseError
        If a field does not exist, or has a value of another type.
    """
    resource, _, verb = path.rpartition(":")
    if verb not in _MESSAGES:
        return None
    _, _, name = resource.lstrip("/").partition("/")
    return json_format.ParseDict({**body, "resource": name}, _MESSAGES[verb]())
