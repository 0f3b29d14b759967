"""What an emulator really holds, asked without anything of what is under test."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import secrets
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import google_crc32c

from tests.gcs.emulator import HOST

if TYPE_CHECKING:
    from collections.abc import Mapping


def crc32c_of(content: bytes) -> str:
    """Checksum as the storage tells it."""
    return base64.b64encode(google_crc32c.value(content).to_bytes(4, "big")).decode()


def new_bucket(port: int) -> str:
    """Create a bucket that nobody else uses."""
    name = f"test-{secrets.token_hex(6)}"
    _ask(
        port, "POST", "/storage/v1/b?project=test", json.dumps({"name": name}).encode()
    )
    return name


def names_in(port: int, bucket: str) -> list[str]:
    """Names of all objects of a bucket."""
    found = json.loads(_ask(port, "GET", f"/storage/v1/b/{bucket}/o"))
    return sorted(one["name"] for one in found.get("items", []))


def content_of(port: int, bucket: str, name: str) -> bytes:
    """Content of an object."""
    return _ask(port, "GET", f"{_path(bucket, name)}?alt=media")


def held_by(port: int, bucket: str) -> Mapping[str, bytes]:
    """All objects of a bucket."""
    return {name: content_of(port, bucket, name) for name in names_in(port, bucket)}


def put(port: int, bucket: str, name: str, content: bytes) -> None:
    """Create or overwrite an object, as somebody else could."""
    path = (
        f"/upload/storage/v1/b/{bucket}/o?uploadType=media&name={quote(name, safe='')}"
    )
    _ask(port, "POST", path, content)


def remove(port: int, bucket: str, name: str) -> None:
    """Delete an object, as somebody else could."""
    _ask(port, "DELETE", _path(bucket, name))


def remove_bucket(port: int, bucket: str) -> None:
    """Delete an empty bucket."""
    _ask(port, "DELETE", f"/storage/v1/b/{bucket}")


def _path(bucket: str, name: str) -> str:
    return f"/storage/v1/b/{bucket}/o/{quote(name, safe='')}"


def _ask(port: int, method: str, path: str, body: bytes | None = None) -> bytes:
    connection = http.client.HTTPConnection(HOST, port)
    with contextlib.closing(connection):
        connection.request(method, path, body)
        answer = connection.getresponse()
        content: Any = answer.read()
        assert answer.status < http.client.BAD_REQUEST, content
        return bytes(content)
