"""Streams that survive the connections which carry them.

A forwarded port breaks when the network, the API server or a proxy does, and Dask's client
then gives up its futures. Here both ends keep what the other has not confirmed, and a new
connection continues where the old one was cut: neither client nor scheduler notices.

On a connection, after a greeting (ID of the stream: 16 bytes; bytes received: 8), each side
sends frames: a kind of one byte, a number of 8 bytes, and for data as many bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections import deque

Pipe = tuple[asyncio.StreamReader, asyncio.StreamWriter]

ID_BYTES = 16
_FRAME = struct.Struct(">cQ")
_DATA, _CONFIRM, _END = b"d", b"c", b"e"
_CHUNK = 256 * 1024
_MAX_UNCONFIRMED = 16 * 2**20
_CONFIRM_EVERY = 1 * 2**20
_CONFIRM_AFTER = 0.2
_QUIET_TIMEOUT = 10.0  # a connection that is silent for so long counts as cut


class ResumableStream:
    """One end of a stream: a local connection on one side, carriers on the other.

    Parameters
    ----------
    local : (StreamReader, StreamWriter)
        The connection whose bytes are carried.
    """

    def __init__(self, local: Pipe) -> None:
        self._reader, self._writer = local
        self._unconfirmed: deque[bytes] = deque()
        self._confirmed = 0  # bytes sent that the other side has confirmed
        self._read = 0  # bytes taken from the local connection
        self._received = 0  # bytes from the other side
        self._acknowledged = 0  # those of them that it knows to have arrived
        self._ended = False  # the local connection has sent everything
        self._changed = asyncio.Condition()
        self.closed = asyncio.Event()

    @property
    def received(self) -> int:
        """Bytes that have arrived from the other side."""
        return self._received

    @property
    def is_over(self) -> bool:
        """Whether there is nothing more to carry in either direction."""
        all_confirmed = self._ended and self._confirmed == self._read
        return self.closed.is_set() or all_confirmed

    async def pump(self) -> None:
        """Read the local connection until it ends."""
        while not self.closed.is_set():
            async with self._changed:
                await self._changed.wait_for(
                    lambda: self._read - self._confirmed < _MAX_UNCONFIRMED
                )
            try:
                chunk = await self._reader.read(_CHUNK)
            except OSError:
                chunk = b""
            async with self._changed:
                if chunk:
                    self._unconfirmed.append(chunk)
                    self._read += len(chunk)
                else:
                    self._ended = True
                self._changed.notify_all()
            if not chunk:
                return

    async def carry(self, carrier: Pipe, confirmed: int) -> None:
        """Use a connection, until it breaks or the stream ends.

        Parameters
        ----------
        carrier : (StreamReader, StreamWriter)
            After its greeting.
        confirmed : int
            Bytes that the other side has received.
        """
        reader, writer = carrier
        self._confirm(confirmed)
        tasks = [
            asyncio.ensure_future(self._send(writer)),
            asyncio.ensure_future(self._receive(reader)),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def close(self) -> None:
        """End the local connection."""
        self.closed.set()
        self._writer.close()

    def _confirm(self, count: int) -> None:
        """Drop bytes that the other side has received."""
        while self._unconfirmed and self._confirmed < count:
            first = self._unconfirmed.popleft()
            if self._confirmed + len(first) > count:
                kept = count - self._confirmed
                self._unconfirmed.appendleft(first[kept:])
                first = first[:kept]
            self._confirmed += len(first)

    async def _send(self, writer: asyncio.StreamWriter) -> None:
        """Send what is not confirmed, then new data."""
        sent, end_sent = self._confirmed, False
        while True:
            chunks = self._after(sent)
            for chunk in chunks:
                writer.write(_FRAME.pack(_DATA, len(chunk)) + chunk)
                sent += len(chunk)
                await writer.drain()
            if self._ended and sent == self._read and not end_sent:
                writer.write(_FRAME.pack(_END, 0))
                end_sent = True
            self._acknowledged = self._received
            # Also a heartbeat.
            writer.write(_FRAME.pack(_CONFIRM, self._acknowledged))
            await writer.drain()
            await self._wait_for_data(sent, end_sent=end_sent)

    async def _wait_for_data(self, sent: int, *, end_sent: bool) -> None:
        def has_news() -> bool:
            late = self._received - self._acknowledged >= _CONFIRM_EVERY
            return self._read > sent or late or (self._ended and not end_sent)

        timeout = (
            _CONFIRM_AFTER
            if self._received > self._acknowledged
            else _QUIET_TIMEOUT / 4
        )
        with contextlib.suppress(TimeoutError):
            async with self._changed, asyncio.timeout(timeout):
                await self._changed.wait_for(has_news)

    def _after(self, position: int) -> list[bytes]:
        """Return the kept bytes after a position."""
        at, found = self._confirmed, []
        for chunk in self._unconfirmed:
            if at + len(chunk) > position:
                found.append(chunk[max(position - at, 0) :])
            at += len(chunk)
        return found

    async def _receive(self, reader: asyncio.StreamReader) -> None:
        """Write what arrives to the local connection, until the carrier breaks or ends."""
        while True:
            async with asyncio.timeout(_QUIET_TIMEOUT):
                kind, number = _FRAME.unpack(await reader.readexactly(_FRAME.size))
                data = await reader.readexactly(number) if kind == _DATA else b""
            if kind == _END:
                self.close()
                return
            if kind == _DATA:
                self._received += len(data)
                try:
                    self._writer.write(data)
                    await self._writer.drain()
                except OSError:
                    self.close()
                    return
            async with self._changed:
                if kind == _CONFIRM:
                    self._confirm(number)
                self._changed.notify_all()
