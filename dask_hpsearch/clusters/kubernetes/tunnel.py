"""The two ends of a tunnel of resumable streams: entry at the client, exit in the pod."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import struct
import time
from typing import TYPE_CHECKING

from dask_hpsearch.clusters.kubernetes.resumable_stream import ID_BYTES, ResumableStream

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any, Self

    from dask_hpsearch.clusters.kubernetes.resumable_stream import Pipe

_COUNT = struct.Struct(">Q")
_GONE = 2**64 - 1
_LOOPBACK = "127.0.0.1"
_GREETING_TIMEOUT = 10.0
_KEEP_TIME = 60.0  # seconds that an end waits for the other to reconnect
_RECONNECT_PAUSES = (0.05, 0.1, 0.2, 0.5, 1.0)
_logger = logging.getLogger(__name__)


class TunnelEntry:
    """The client's end: listens on this machine, and reconnects to the pod.

    Parameters
    ----------
    carrier_port : int
        Port of this machine that is forwarded to the pod's end.
    """

    def __init__(self, carrier_port: int) -> None:
        self._carrier_port = carrier_port
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        """The port on which it listens."""
        assert self._server is not None  # noqa: S101 (after start)
        return int(self._server.sockets[0].getsockname()[1])

    async def start(self) -> Self:
        """Listen on loopback."""
        self._server = await asyncio.start_server(self._accept, _LOOPBACK, 0)
        return self

    async def close(self) -> None:
        """Close it, with its streams."""
        if self._server is not None:
            self._server.close()
        await _end_all(self._tasks)

    def _accept(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        _begin(self._tasks, self._serve(reader, writer))

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        stream = ResumableStream((reader, writer))
        pump = asyncio.ensure_future(stream.pump())
        try:
            await self._carry_until_over(stream)
        finally:
            pump.cancel()
            stream.close()
            await asyncio.gather(pump, return_exceptions=True)
            await _closed(writer)

    async def _carry_until_over(self, stream: ResumableStream) -> None:
        name = os.urandom(ID_BYTES)
        failures, alive = 0, time.monotonic()
        while not stream.is_over and time.monotonic() - alive < _KEEP_TIME:
            carrier = await self._connect(name, stream)
            if carrier is None:
                await asyncio.sleep(
                    _RECONNECT_PAUSES[min(failures, len(_RECONNECT_PAUSES) - 1)]
                )
                failures += 1
                continue
            pipe, confirmed = carrier
            try:
                if confirmed == _GONE:
                    return
                failures = 0
                await stream.carry(pipe, confirmed)
            finally:
                await _closed(pipe[1])
            alive = time.monotonic()

    async def _connect(
        self, name: bytes, stream: ResumableStream
    ) -> tuple[Pipe, int] | None:
        """Return a connection and how much the other end has received; None if it fails."""
        try:
            pipe = await asyncio.open_connection(_LOOPBACK, self._carrier_port)
        except OSError:
            return None
        reader, writer = pipe
        try:
            async with asyncio.timeout(_GREETING_TIMEOUT):
                writer.write(name + _COUNT.pack(stream.received))
                await writer.drain()
                [confirmed] = _COUNT.unpack(await reader.readexactly(_COUNT.size))
        except (OSError, EOFError):  # a TimeoutError is an OSError
            writer.close()
            return None
        except BaseException:  # the tunnel is closed meanwhile
            writer.close()
            raise
        return pipe, confirmed


class TunnelExit:
    """The pod's end: connects each stream to a port of the pod.

    Parameters
    ----------
    target_port : int
        Port of this machine to which streams are connected.
    """

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._server: asyncio.Server | None = None
        self._streams: dict[bytes, _OpenStream] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        """The port on which it listens."""
        assert self._server is not None  # noqa: S101 (after start)
        return int(self._server.sockets[0].getsockname()[1])

    async def start(self, port: int = 0) -> Self:
        """Listen on loopback."""
        self._server = await asyncio.start_server(self._accept, _LOOPBACK, port)
        return self

    async def close(self) -> None:
        """Close it, with its streams."""
        if self._server is not None:
            self._server.close()
        for held in list(self._streams.values()):
            await held.end()
        await _end_all(self._tasks)

    def _accept(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        _begin(self._tasks, self._serve(reader, writer))

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            async with asyncio.timeout(_GREETING_TIMEOUT):
                name = await reader.readexactly(ID_BYTES)
                [confirmed] = _COUNT.unpack(await reader.readexactly(_COUNT.size))
            held = self._streams.get(name) or await self._begin(name, confirmed)
            received = _GONE if held is None else await held.take_over()
            writer.write(_COUNT.pack(received))
            if held is not None:
                await held.carry((reader, writer), confirmed)
        except (OSError, EOFError) as error:
            _logger.debug("a carrier ended: %r", error)
        finally:
            await _closed(writer)

    async def _begin(self, name: bytes, confirmed: int) -> _OpenStream | None:
        if confirmed:  # the stream was begun with an earlier process
            return None
        try:
            local = await asyncio.open_connection(_LOOPBACK, self._target_port)
        except OSError:
            return None
        held = _OpenStream(
            ResumableStream(local), lambda: self._streams.pop(name, None)
        )
        self._streams[name] = held
        return held


class _OpenStream:
    """A stream of the pod's end, with or without a carrier."""

    def __init__(self, stream: ResumableStream, forget: Callable[[], object]) -> None:
        self.stream = stream
        self._forget = forget
        self._pump = asyncio.ensure_future(stream.pump())
        self._carrying: asyncio.Task[None] | None = None
        self._expiry: asyncio.TimerHandle | None = None

    async def take_over(self) -> int:
        """Close the carrier, if there is one; return how much was received."""
        if self._expiry is not None:
            self._expiry.cancel()
        if self._carrying is not None:
            self._carrying.cancel()
            await asyncio.gather(self._carrying, return_exceptions=True)
        return self.stream.received

    async def carry(self, pipe: Pipe, confirmed: int) -> None:
        """Use a connection until it breaks; then wait some time for another one."""
        self._carrying = asyncio.ensure_future(self.stream.carry(pipe, confirmed))
        own = self._carrying
        await asyncio.gather(own, return_exceptions=True)
        if self._carrying is not own:
            return
        if self.stream.is_over:
            await self.end()
        else:
            loop = asyncio.get_running_loop()
            self._expiry = loop.call_later(
                _KEEP_TIME, lambda: asyncio.ensure_future(self.end())
            )

    async def end(self) -> None:
        """Close its local connection."""
        self._forget()
        if self._expiry is not None:
            self._expiry.cancel()
        tasks = [task for task in (self._pump, self._carrying) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.stream.close()


def _begin(tasks: set[asyncio.Task[None]], work: Coroutine[Any, Any, None]) -> None:
    """Start a task, and keep a reference until it is done.

    asyncio's own server logs errors of cancelled tasks.
    """
    task = asyncio.ensure_future(work)
    tasks.add(task)
    task.add_done_callback(tasks.discard)


async def _closed(writer: asyncio.StreamWriter) -> None:
    """Close a connection, and wait until its socket is closed."""
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def _end_all(tasks: set[asyncio.Task[None]]) -> None:
    for task in list(tasks):
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
