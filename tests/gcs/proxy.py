"""A proxy before the emulator: conditions that the emulator ignores, latency, faults."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import struct
import threading
from dataclasses import replace
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from tests.gcs.emulator import HOST
from tests.gcs.faults import Fault, Faults
from tests.gcs.held import crc32c_of
from tests.gcs.requests import Request, metadata, parse

if TYPE_CHECKING:
    from collections.abc import Iterator

_PIECE_BYTES = 2**18
_SLOW_PIECES = 20
_OWN_HEADERS = ("connection", "content-length", "transfer-encoding", "date", "server")
_REASONS = {403: "forbidden", 404: "notFound", 412: "conditionNotMet", 400: "invalid"}
_NO_CONDITION = "At least one of the pre-conditions you specified did not hold."


class Proxy:
    """Stands before an emulator on a port of its own.

    Parameters
    ----------
    port : int
        The emulator's.
    latency_s : float
        Added to every request.

    Attributes
    ----------
    url : str
        What ``STORAGE_EMULATOR_HOST`` takes.
    faults : Faults
    forgets : bool
        Know nothing more of an upload once it has ended, as after a week.
    seen : list of (str, str)
        Kind and object of every request so far.
    """

    def __init__(self, port: int, *, latency_s: float = 0.0) -> None:
        self.port = port
        self.latency_s = latency_s
        self.faults = Faults()
        self.forgets = False
        self.seen: list[tuple[str, str]] = []
        self.uploads: dict[str, Upload] = {}
        self.lock = threading.Lock()
        self.closed = threading.Event()
        self._open: set[socket.socket] = set()
        self._server = _Server((HOST, 0), _Handler)
        self._server.proxy = self
        self.url = f"http://{HOST}:{self._server.server_address[1]}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), daemon=True
        )
        self._thread.start()

    def opened(self, connection: socket.socket) -> None:
        """Remember a connection, to end it with the proxy."""
        with self.lock:
            self._open.add(connection)

    def ended(self, connection: socket.socket) -> None:
        """Forget a connection."""
        with self.lock:
            self._open.discard(connection)

    def close(self) -> None:
        """End all connections."""
        self.closed.set()
        self._server.shutdown()
        with self.lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self._server.server_close()  # waits for the handlers' threads
        self._thread.join()

    def count(self, *kinds: str, name: str = "") -> int:
        """How many requests of some kinds came for objects of such a name."""
        return sum(kind in kinds and name in of for kind, of in self.seen)


@contextlib.contextmanager
def proxy(port: int, *, latency_s: float = 0.0) -> Iterator[Proxy]:
    """Run a proxy before an emulator, and end it in the end."""
    running = Proxy(port, latency_s=latency_s)
    try:
        yield running
    finally:
        running.close()


class Upload:
    """A resumable upload, from its beginning to its end.

    Parameters
    ----------
    begun : Request
        What began it: with the conditions and the checksum that are to hold.
    """

    def __init__(self, begun: Request) -> None:
        self.begun = begun
        self.crc32c = metadata("begin", begun.body).get("crc32c")
        self.finished: Answer | None = None


class Answer:
    """An answer as a whole.

    Parameters
    ----------
    status : int
    headers : list of (str, str)
    body : bytes
    """

    def __init__(
        self, status: int, headers: list[tuple[str, str]], body: bytes
    ) -> None:
        self.status = status
        self.headers = [one for one in headers if one[0].lower() not in _OWN_HEADERS]
        self.body = body

    @classmethod
    def of_error(cls, status: int, message: str) -> Answer:
        """Make an error as Google's JSON API tells it."""
        reason = _REASONS.get(status, "backendError")
        one = {"message": message, "domain": "global", "reason": reason}
        error = {"code": status, "message": message, "errors": [one]}
        body = json.dumps({"error": error}).encode()
        return cls(status, [("Content-Type", "application/json; charset=UTF-8")], body)


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    block_on_close = True
    request_queue_size = 128
    proxy: Proxy

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of connections that clients, or faults, have cut."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.proxy = self.server.proxy
        self.proxy.opened(self.connection)
        self.upstream = http.client.HTTPConnection(HOST, self.proxy.port)

    def finish(self) -> None:
        self.upstream.close()
        self.proxy.ended(self.connection)
        with contextlib.suppress(OSError):
            super().finish()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (its name there)
        """Keep quiet."""

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        request = self._named(parse(self.command, self.path, body))
        self.proxy.seen.append((request.kind, request.name))
        fault = self.proxy.faults.take(request.kind, request.name)
        self.proxy.closed.wait(self.proxy.latency_s)
        if fault is not None and fault.action == "hang":
            self.proxy.closed.wait()
        if fault is not None and fault.action in ("hang", "reset"):
            self._reset()
        elif fault is not None and fault.action == "status":
            self._send(Answer.of_error(fault.status, fault.message))
        else:
            if fault is not None and fault.action == "garble":
                request = replace(request, body=_flipped(request.body))
            answer = self._answer(request)
            if fault is not None and fault.action == "lose":
                self._reset()
            else:
                self._send(answer, fault)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = _handle  # noqa: N815 (the base's)

    def _named(self, request: Request) -> Request:
        """Give a chunk the object of its upload."""
        upload = self.proxy.uploads.get(request.query.get("upload_id", ""))
        if request.kind != "chunk" or upload is None:
            return request
        return replace(request, bucket=upload.begun.bucket, name=upload.begun.name)

    # --- what the storage would answer ------------------------------------------------

    def _answer(self, request: Request) -> Answer:
        if request.kind == "chunk":
            return self._answer_chunk(request)
        if request.kind in ("stat", "download", "delete"):
            refused = self._refused(request, request)
            if refused is not None:
                return refused
        if request.kind == "upload" and not _is_as_announced(request.body):
            return Answer.of_error(400, "Provided CRC32C does not match the content.")
        answer = self._forward(request)
        if request.kind == "begin" and answer.status == HTTPStatus.OK:
            return self._begun(request, answer)
        return answer

    def _begun(self, request: Request, answer: Answer) -> Answer:
        """Note an upload, whose chunks are to come this way too."""
        location = dict(answer.headers)["Location"]
        url = urlsplit(location)
        self.proxy.uploads[parse_qs(url.query)["upload_id"][0]] = Upload(request)
        here = f"{self.proxy.url}{url.path}?{url.query}"
        answer.headers = [
            (name, here if name == "Location" else value)
            for name, value in answer.headers
        ]
        return answer

    def _answer_chunk(self, request: Request) -> Answer:
        upload = self.proxy.uploads.get(request.query.get("upload_id", ""))
        if upload is None:
            return Answer.of_error(404, "No such upload.")
        with self.proxy.lock:  # one is finished at a time: conditions hold to the end
            if upload.finished is not None and not self.proxy.forgets:
                return upload.finished
            if upload.finished is not None:
                return Answer.of_error(410, "This upload has ended.")
            if not _is_last(self.headers.get("Content-Range", "")):
                return self._forward(request)
            refused = self._refused(upload.begun, request)
            if refused is not None:
                return refused
            answer = self._forward(request)
            if answer.status == HTTPStatus.OK:
                upload.finished = answer = self._checked(upload, request, answer)
        return answer

    def _checked(self, upload: Upload, request: Request, answer: Answer) -> Answer:
        """Refuse an object whose content is not what was announced."""
        found = json.loads(answer.body).get("crc32c")
        if upload.crc32c in (None, found):
            return answer
        self._ask("DELETE", request.path_of_object)
        said = f"Provided CRC32C {upload.crc32c!r} does not match {found!r}."
        return Answer.of_error(400, said)

    def _refused(self, conditions: Request, request: Request) -> Answer | None:
        """Check a request's conditions, as far as the emulator does not."""
        wanted = conditions.condition("ifGenerationMatch")
        unwanted = conditions.condition("ifGenerationNotMatch")
        pinned = conditions.condition("generation")
        if wanted is None and unwanted is None and pinned is None:
            return None
        found = self._ask("GET", request.path_of_object)
        generation = 0
        if found.status == HTTPStatus.OK:
            generation = int(json.loads(found.body)["generation"])
        if pinned is not None and pinned != generation:
            name = f"{request.bucket}/{request.name}#{pinned}"
            return Answer.of_error(404, f"No such object: {name}")
        if wanted is not None and wanted != generation:
            return Answer.of_error(412, _NO_CONDITION)
        if unwanted is not None and unwanted == generation:
            return Answer(HTTPStatus.NOT_MODIFIED, [], b"")
        return None

    def _forward(self, request: Request) -> Answer:
        headers = {
            name: value
            for name, value in self.headers.items()
            if name.lower() not in ("host", "connection", "content-length")
        }
        answer = self._ask(request.method, request.target, request.body, headers)
        if answer.status == HTTPStatus.NOT_FOUND and request.kind != "chunk":
            return self._not_found(request)
        return answer

    def _not_found(self, request: Request) -> Answer:
        """Tell what is missing, as the storage does and the emulator does not."""
        bucket = self._ask("GET", f"/storage/v1/b/{request.bucket}")
        if bucket.status == HTTPStatus.NOT_FOUND:
            return Answer.of_error(404, "The specified bucket does not exist.")
        name = f"{request.bucket}/{request.name}"
        return Answer.of_error(404, f"No such object: {name}")

    def _ask(
        self,
        method: str,
        target: str,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
    ) -> Answer:
        self.upstream.request(method, target, body or None, headers or {})
        response = self.upstream.getresponse()
        return Answer(response.status, response.getheaders(), response.read())

    # --- what comes of it -------------------------------------------------------------

    def _send(self, answer: Answer, fault: Fault | None = None) -> None:
        action = None if fault is None else fault.action
        body = memoryview(_flipped(answer.body) if action == "flip" else answer.body)
        length = len(body) // 2 if action == "shorten" else len(body)
        sent = len(body) // 2 if action in ("shorten", "cut") else len(body)
        self.send_response(answer.status)
        for name, value in answer.headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        piece, pause_s = _PIECE_BYTES, 0.0
        if fault is not None and action == "slow":
            piece, pause_s = max(1, len(body) // _SLOW_PIECES), fault.pause_s
        for start in range(0, sent, piece):
            self.wfile.write(body[start : min(start + piece, sent)])
            self.proxy.closed.wait(pause_s)
        if action == "cut":
            self._reset()

    def _reset(self) -> None:
        """End the connection at once, as a broken network does."""
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
            self.connection.shutdown(socket.SHUT_RDWR)


def _is_last(content_range: str) -> bool:
    """Whether a chunk ends an upload: it says how long the whole is."""
    span, _, total = content_range.removeprefix("bytes ").partition("/")
    if total in ("", "*"):
        return False
    return span == "*" or int(span.rpartition("-")[2]) + 1 == int(total)


def _is_as_announced(multipart: bytes) -> bool:
    """Whether the content of a whole upload has the checksum in its metadata."""
    said = metadata("upload", multipart).get("crc32c")
    content = multipart.split(b"\r\n\r\n", 2)[-1].rpartition(b"\r\n--")[0]
    return said is None or said == crc32c_of(content)


def _flipped(body: bytes) -> bytes:
    """Change a bit in the midst."""
    changed = bytearray(body)
    if changed:
        changed[len(changed) // 2] ^= 1
    return bytes(changed)
