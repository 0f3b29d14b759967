"""Requests about access, as REST has them, read as Google's own messages: strictly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.iam.v1 import iam_policy_pb2
from google.protobuf import json_format

if TYPE_CHECKING:
    from collections.abc import Mapping

_MESSAGES: Mapping[str, Any] = {
    "getIamPolicy": iam_policy_pb2.GetIamPolicyRequest,
    "setIamPolicy": iam_policy_pb2.SetIamPolicyRequest,
    "testIamPermissions": iam_policy_pb2.TestIamPermissionsRequest,
}


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
