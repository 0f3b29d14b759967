"""A Kubernetes API as far as objects go: they are created, applied, read, and nothing runs."""

from __future__ import annotations

import base64
import contextlib
import json
import ssl
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import yaml

from tests.fakes.certificates import own_certificate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass(slots=True)
class FakeKubernetes:
    """The API of a Kubernetes without nodes.

    Attributes
    ----------
    address : str
    authority : str
        Its certificate, as GKE's API has it.
    objects : dict
        By their paths, in the order in which they came.
    tokens : set of str
        Those of the requests.
    """

    address: str = ""
    authority: str = ""
    objects: dict[str, Any] = field(default_factory=dict)
    tokens: set[str] = field(default_factory=set)

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        """Answer a request."""
        if method == "GET" and path == "/version":
            return 200, {"major": "1", "minor": "33", "gitVersion": "v1.33.0"}
        if method == "GET":
            return self._read(path)
        if method == "DELETE":
            found = self.objects.pop(path, None)
            return (404, _missing(path)) if found is None else (200, found)
        if method == "POST":
            path = f"{path}/{body['metadata']['name']}"
        self.objects[path] = {**self.objects.get(path, {}), **body}
        return 201 if method == "POST" else 200, self.objects[path]

    def _read(self, path: str) -> tuple[int, Any]:
        if path in self.objects:
            return 200, self.objects[path]
        inside = f"{path}/"
        items = [
            one
            for name, one in self.objects.items()
            if name.startswith(inside) and "/" not in name.removeprefix(inside)
        ]
        *_, last = path.split("/")
        plural = last.endswith("s")
        return (
            (200, {"kind": "List", "items": items}) if plural else (404, _missing(path))
        )


def _missing(path: str) -> dict[str, Any]:
    return {"kind": "Status", "status": "Failure", "message": f"{path} not found"}


@contextlib.contextmanager
def fake_kubernetes(folder: Path) -> Iterator[FakeKubernetes]:
    """Serve it by TLS on loopback while the context lasts.

    Parameters
    ----------
    folder : Path
        For its key.
    """
    found = FakeKubernetes()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = yaml.safe_load(self.rfile.read(length)) if length else {}
            found.tokens.add(self.headers.get("Authorization", ""))
            path = urlsplit(self.path).path.rstrip("/")
            status, answer = found.answer(self.command, path, body)
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_PATCH = do_DELETE = do_GET  # noqa: N815 (http.server's names)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    key, certificate = own_certificate("localhost")
    pem = folder / "kubernetes.pem"
    pem.write_bytes(key + certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        found.address = f"localhost:{server.server_address[1]}"
        found.authority = base64.b64encode(certificate).decode()
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()
