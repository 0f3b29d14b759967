"""Requests of the storage's JSON API, told apart."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.gcs.faults import Kind

_OBJECTS = re.compile(r"(/download|/upload)?/storage/v1/b/([^/]+)/o(?:/(.+))?")


@dataclass(frozen=True, slots=True)
class Request:
    """A request as the storage understands it.

    Attributes
    ----------
    method, target : str
        As they came.
    kind : str
    bucket, name : str
        Of the object; empty if there is none.
    query : dict of str to str
    body : bytes
    """

    method: str
    target: str
    kind: Kind
    bucket: str
    name: str
    query: Mapping[str, str]
    body: bytes

    @property
    def path_of_object(self) -> str:
        """Where the object's metadata is."""
        return f"/storage/v1/b/{self.bucket}/o/{quote(self.name, safe='')}"

    def condition(self, name: str) -> int | None:
        """A number of the query, such as ``ifGenerationMatch``."""
        value = self.query.get(name)
        return None if value is None else int(value)


def parse(method: str, target: str, body: bytes) -> Request:
    """Tell what a request asks for."""
    url = urlsplit(target)
    query = {name: values[-1] for name, values in parse_qs(url.query).items()}
    if url.path.startswith("/upload/resumable") or "upload_id" in query:
        return Request(method, target, "chunk", "", "", query, body)
    found = _OBJECTS.fullmatch(url.path)
    if found is None:
        return Request(method, target, "other", "", "", query, body)
    way, bucket, name = found[1], unquote(found[2]), unquote(found[3] or "")
    kind = _kind(method, way, name, query)
    if kind in ("upload", "begin"):
        name = query.get("name") or metadata(kind, body).get("name", "")
    return Request(method, target, kind, bucket, name, query, body)


def metadata(kind: str, body: bytes) -> dict[str, Any]:
    """Metadata that an upload gives its object."""
    if kind == "upload":  # multipart: JSON first, between two lines of a boundary
        body = body.partition(b"\r\n\r\n")[2]
    try:
        return dict(json.JSONDecoder().raw_decode(body.decode("latin-1").lstrip())[0])
    except ValueError:
        return {}


def _kind(method: str, way: str | None, name: str, query: Mapping[str, str]) -> Kind:
    if method == "POST":
        return "begin" if query.get("uploadType") == "resumable" else "upload"
    if method == "DELETE":
        return "delete"
    if not name:
        return "list"
    return "download" if way or query.get("alt") == "media" else "stat"
