"""Follows what pods write, and breaks the way to Kubernetes."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import os
import socket
import threading
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import yaml

from dask_hpsearch.clusters.kubernetes import api as kubernetes_api

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

_LOOK_EVERY_S = 0.3


class FitLog:
    """Collects what fits say in the logs of a cluster's pods, also of pods that go.

    Attributes
    ----------
    followed : dict
        Pods whose logs are read.
    """

    def __init__(self, cluster: str, namespace: str) -> None:
        self._labels = f"dask.org/cluster-name={cluster},dask.org/component=worker"
        self._namespace = namespace
        self._lines: list[str] = []
        self._end = threading.Event()
        self.followed: dict[str, asyncio.Task[None]] = {}
        self._thread = threading.Thread(target=lambda: asyncio.run(self._follow()))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def counts(self, word: str, numbers: range) -> Counter[str]:
        """Count the fits of some numbers that have begun, or ended."""
        return Counter(fit for fit, _, _ in self._said(word, numbers))

    def first_begun(self, numbers: range) -> dict[str, dt.datetime]:
        """Tell when the first fit of some numbers began, for each pod."""
        first: dict[str, dt.datetime] = {}
        for _, pod, when in self._said("began", numbers):
            first[pod] = min(when, first.get(pod, when))
        return first

    def _said(
        self, word: str, numbers: range
    ) -> Iterator[tuple[str, str, dt.datetime]]:
        for line in list(self._lines):
            when, _, said, number, samples, first, pod = line.split()
            if said == word and int(number) in numbers:
                yield f"{number} {samples} {first}", pod, moment_of(when)

    async def _follow(self) -> None:
        async with kubernetes_api.connected(namespace=self._namespace) as api:
            followed = self.followed
            while not self._end.is_set():
                for pod in await api.list("Pod", self._labels):
                    name = pod["metadata"]["name"]
                    if pod["status"]["phase"] == "Running" and name not in followed:
                        followed[name] = asyncio.ensure_future(self._read(api, name))
                await asyncio.sleep(_LOOK_EVERY_S)
            for task in followed.values():
                task.cancel()
            await asyncio.gather(*followed.values(), return_exceptions=True)

    async def _read(self, api: kubernetes_api.KubernetesApi, name: str) -> None:
        async with api.connection.call_api(
            "GET",
            url=f"pods/{name}/log",
            namespace=self._namespace,
            params={"follow": "true", "timestamps": "true"},
            stream=True,
            timeout=None,
        ) as response:
            async for line in response.aiter_lines():
                if line.partition(" ")[2].startswith("fit "):
                    self._lines.append(line)


def moment_of(text: str) -> dt.datetime:
    """Read a time of Kubernetes'; its nanoseconds are more than Python reads."""
    fraction = text[19:].rstrip("Z").partition("+")[0]
    whole = dt.datetime.fromisoformat(f"{text[:19]}+00:00")
    return whole + dt.timedelta(seconds=float(fraction or 0))


class BreakingProxy:
    """A way to the API server that can be cut at any moment."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._lock = threading.Lock()
        threading.Thread(target=self._serve, daemon=True).start()

    def cut(self) -> int:
        """Break all connections; return how many there were."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for end in pair:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
        return len(pairs)

    def close(self) -> None:
        """End it."""
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self.cut()

    def _serve(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                return
            with self._lock:
                self._pairs.append((near, far))
            done = threading.Barrier(2, action=lambda n=near, f=far: _close(n, f))
            for way in ((near, far), (far, near)):
                threading.Thread(target=_copy, args=(*way, done), daemon=True).start()


def _copy(source: socket.socket, sink: socket.socket, done: threading.Barrier) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
    done.wait()


def _close(*ends: socket.socket) -> None:
    for end in ends:
        end.close()


@contextlib.contextmanager
def breaking_kubeconfig(folder: Path) -> Iterator[tuple[str, BreakingProxy]]:
    """Make a kubeconfig whose way to the API server can be cut."""
    path = os.environ.get("KUBECONFIG") or Path.home() / ".kube" / "config"
    config: dict[str, Any] = yaml.safe_load(Path(path).read_text())
    server = config["clusters"][0]["cluster"]["server"]
    proxy = BreakingProxy(urlsplit(server).port or 443)
    config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{proxy.port}"
    copy = folder / "kubeconfig"
    copy.write_text(yaml.safe_dump(config))
    copy.chmod(0o600)
    try:
        yield str(copy), proxy
    finally:
        proxy.close()
