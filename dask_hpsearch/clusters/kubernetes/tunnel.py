"""The two ends of a tunnel of lasting streams: one beside the client, one in the pod."""

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
_GREETING_WAIT_S = 10.0
_KEPT_S = 60.0  # how long an end waits for the other to come back
_PAUSES_S = (0.05, 0.1, 0.2, 0.5, 1.0)
_logger = logging.getLogger(__name__)


class TunnelEntry:
    """The client's end: listens on this machine, and keeps going into the pod.

    Parameters
    ----------
    carrier_port : int
        Port of this machine from which each connection leads to the pod's end.
    """

    def __init__(self, carrier_port: int) -> None:
        self._carrier_port = carrier_port
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._server is not None  # noqa: S101 (after start)
        return int(self._server.sockets[0].getsockname()[1])

    async def start(self) -> Self:
        """Listen on loopback."""
        self._server = await asyncio.start_server(self._accept, _LOOPBACK, 0)
        return self

    async def close(self) -> None:
        """End it, with all that it carries."""
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
            await self._keep_going(stream)
        finally:
            pump.cancel()
            stream.close()
            await asyncio.gather(pump, return_exceptions=True)
            await _closed(writer)

    async def _keep_going(self, stream: ResumableStream) -> None:
        name = os.urandom(ID_BYTES)
        failures, alive = 0, time.monotonic()
        while not stream.is_over and time.monotonic() - alive < _KEPT_S:
            carrier = await self._connect(name, stream)
            if carrier is None:
                await asyncio.sleep(_PAUSES_S[min(failures, len(_PAUSES_S) - 1)])
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
        """Return a connection and what the other end has; None if it cannot be had."""
        try:
            pipe = await asyncio.open_connection(_LOOPBACK, self._carrier_port)
        except OSError:
            return None
        reader, writer = pipe
        try:
            async with asyncio.timeout(_GREETING_WAIT_S):
                writer.write(name + _COUNT.pack(stream.received))
                await writer.drain()
                [confirmed] = _COUNT.unpack(await reader.readexactly(_COUNT.size))
        except (OSError, EOFError):  # a TimeoutError is an OSError
            writer.close()
            return None
        return pipe, confirmed


class TunnelExit:
    """The pod's end: hands each stream to a port of the pod.

    Parameters
    ----------
    target_port : int
        Port of this machine that streams lead to.
    """

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._server: asyncio.Server | None = None
        self._streams: dict[bytes, _Held] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._server is not None  # noqa: S101 (after start)
        return int(self._server.sockets[0].getsockname()[1])

    async def start(self, port: int = 0) -> Self:
        """Listen on loopback."""
        self._server = await asyncio.start_server(self._accept, _LOOPBACK, port)
        return self

    async def close(self) -> None:
        """End it, with all that it carries."""
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
            async with asyncio.timeout(_GREETING_WAIT_S):
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

    async def _begin(self, name: bytes, confirmed: int) -> _Held | None:
        if confirmed:  # a stream that was begun with another process than this
            return None
        try:
            local = await asyncio.open_connection(_LOOPBACK, self._target_port)
        except OSError:
            return None
        held = _Held(ResumableStream(local), lambda: self._streams.pop(name, None))
        self._streams[name] = held
        return held


class _Held:
    """A stream that the pod's end has, with or without a carrier."""

    def __init__(self, stream: ResumableStream, forget: Callable[[], object]) -> None:
        self.stream = stream
        self._forget = forget
        self._pump = asyncio.ensure_future(stream.pump())
        self._carrying: asyncio.Task[None] | None = None
        self._expiry: asyncio.TimerHandle | None = None

    async def take_over(self) -> int:
        """End the carrier there may be, and return what has been received."""
        if self._expiry is not None:
            self._expiry.cancel()
        if self._carrying is not None:
            self._carrying.cancel()
            await asyncio.gather(self._carrying, return_exceptions=True)
        return self.stream.received

    async def carry(self, pipe: Pipe, confirmed: int) -> None:
        """Use a connection until it breaks; then wait for another, for a while."""
        self._carrying = asyncio.ensure_future(self.stream.carry(pipe, confirmed))
        mine = self._carrying
        await asyncio.gather(mine, return_exceptions=True)
        if self._carrying is not mine:
            return
        if self.stream.is_over:
            await self.end()
        else:
            loop = asyncio.get_running_loop()
            self._expiry = loop.call_later(
                _KEPT_S, lambda: asyncio.ensure_future(self.end())
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
    """Begin a task, and remember it until it is done.

    asyncio's own way of serving a connection complains of tasks that were cancelled.
    """
    task = asyncio.ensure_future(work)
    tasks.add(task)
    task.add_done_callback(tasks.discard)


async def _closed(writer: asyncio.StreamWriter) -> None:
    """Close a connection, and wait until its socket is."""
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def _end_all(tasks: set[asyncio.Task[None]]) -> None:
    for task in list(tasks):
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
