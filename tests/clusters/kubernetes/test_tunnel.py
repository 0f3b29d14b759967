"""Streams that are cut on their way arrive whole, and as if nothing had happened."""

from __future__ import annotations

import asyncio
import gc
import random
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from dask_hpsearch.clusters.kubernetes.tunnel import TunnelEntry, TunnelExit

LOOPBACK = "127.0.0.1"


@dataclass
class Cutter:
    """A network that breaks connections after some bytes of either direction."""

    target: int
    lives: list[int] = field(default_factory=list)

    async def start(self) -> int:
        """Listen; return the port."""
        self.server = await asyncio.start_server(self.serve, LOOPBACK, 0)
        return int(self.server.sockets[0].getsockname()[1])

    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Carry bytes until the connection's life is over."""
        left = [self.lives.pop() if self.lives else 10**12]
        there = await asyncio.open_connection(LOOPBACK, self.target)

        async def copy(
            source: asyncio.StreamReader, sink: asyncio.StreamWriter
        ) -> None:
            while data := await source.read(2**15):
                data = data[: left[0]]
                sink.write(data)
                await sink.drain()
                left[0] -= len(data)
                if left[0] <= 0:
                    return

        ways = [
            asyncio.ensure_future(copy(reader, there[1])),
            asyncio.ensure_future(copy(there[0], writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            for end in (writer, there[1]):
                end.transport.abort()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer each byte with itself; end when the other side does."""
    try:
        while data := await reader.read(5000):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


async def round_trip(data: bytes, lives: list[int], chunk: int) -> tuple[bytes, int]:
    """Send bytes to an echo through a network that cuts; return what comes back."""
    server = await asyncio.start_server(echo, LOOPBACK, 0)
    exit_ = await TunnelExit(server.sockets[0].getsockname()[1]).start()
    cutter = Cutter(exit_.port, lives)
    entry = await TunnelEntry(await cutter.start()).start()
    reader, writer = await asyncio.open_connection(LOOPBACK, entry.port)

    async def send() -> None:
        for start in range(0, len(data), chunk):
            writer.write(data[start : start + chunk])
            await writer.drain()

    sending = asyncio.ensure_future(send())
    back = await reader.readexactly(len(data))
    await sending
    writer.close()
    await entry.close()
    await exit_.close()
    cutter.server.close()
    server.close()
    return back, len(cutter.lives)


@settings(max_examples=15)
@given(
    size=st.integers(1, 60_000),
    lives=st.lists(st.integers(1, 30_000), max_size=4),
    chunk=st.integers(500, 20_000),
)
def test_nothing_is_lost_or_repeated(size: int, lives: list[int], chunk: int) -> None:
    """Cut anywhere, in a greeting or a frame: the bytes are those that were sent."""
    data = random.Random(size).randbytes(size)

    back, _ = asyncio.run(round_trip(data, lives, chunk))

    assert back == data


def test_five_cuts_in_a_large_stream() -> None:
    """More than is kept unconfirmed at once, and cut again and again."""
    data = random.Random(0).randbytes(20 * 2**20)

    back, uncut = asyncio.run(round_trip(data, [3 * 2**20] * 5, 2**18))

    assert back == data
    assert uncut == 0


def test_an_end_is_carried_on() -> None:
    """When the scheduler hangs up, the client hears of it."""

    async def hang_up() -> bytes:
        async def close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"bye")
            writer.close()

        server = await asyncio.start_server(close, LOOPBACK, 0)
        exit_ = await TunnelExit(server.sockets[0].getsockname()[1]).start()
        entry = await TunnelEntry(exit_.port).start()
        reader, writer = await asyncio.open_connection(LOOPBACK, entry.port)
        heard = await reader.read()
        writer.close()
        await entry.close()
        await exit_.close()
        server.close()
        return heard

    assert asyncio.run(hang_up()) == b"bye"


def test_a_stream_of_another_scheduler_ends() -> None:
    """What a scheduler had not seen begin, it does not go on with."""

    async def lose() -> bytes:
        server = await asyncio.start_server(echo, LOOPBACK, 0)
        target = server.sockets[0].getsockname()[1]
        first = await TunnelExit(target).start()
        cutter = Cutter(first.port, [])
        entry = await TunnelEntry(await cutter.start()).start()
        reader, writer = await asyncio.open_connection(LOOPBACK, entry.port)
        writer.write(b"a")
        assert await reader.readexactly(1) == b"a"
        second = await TunnelExit(target).start()
        cutter.target = second.port
        await first.close()
        rest = await reader.read()
        writer.close()
        for one in (entry, second):
            await one.close()
        cutter.server.close()
        server.close()
        return rest

    assert asyncio.run(lose()) == b""


def test_a_tunnel_that_is_closed_while_it_connects_leaves_no_connection() -> None:
    """The pod is not there yet: its end of the carrier never answers."""

    async def close_early() -> bool:
        connected, is_closed = asyncio.Event(), asyncio.Event()

        async def keep_silent(
            reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            await reader.readexactly(1)
            connected.set()
            await reader.read()
            is_closed.set()
            writer.close()

        server = await asyncio.start_server(keep_silent, LOOPBACK, 0)
        entry = await TunnelEntry(server.sockets[0].getsockname()[1]).start()
        _, writer = await asyncio.open_connection(LOOPBACK, entry.port)
        await connected.wait()
        gc.disable()  # a collector of garbage would close it too
        try:
            await entry.close()
            return await asyncio.wait_for(is_closed.wait(), 10)
        finally:
            gc.enable()
            writer.close()
            server.close()

    assert asyncio.run(close_early())
