"""Sends bundles to workers that see neither the client's folder nor its store."""

from __future__ import annotations

import concurrent.futures
import contextlib
import logging
import threading
from typing import TYPE_CHECKING

from dask_hpsearch.slots.plugin import forget_bundles, receive_chunk

if TYPE_CHECKING:
    from distributed import Client

    from dask_hpsearch.data.data_store import DataStore
    from dask_hpsearch.messages import DataRef

_logger = logging.getLogger(__name__)
_CHUNK_BYTES = 16 * 2**20
_FORGET_TIMEOUT_S = 5.0


class DataSender:
    """Sends bundles to workers on request.

    Parameters
    ----------
    client : Client
    data_store : DataStore
    topic : str
        Identifies the search: workers may have the same data from another one.
    """

    def __init__(self, client: Client, data_store: DataStore, topic: str) -> None:
        self._client = client
        self._topic = topic
        self._data_store = data_store
        self._threads = concurrent.futures.ThreadPoolExecutor(
            max_workers=4, thread_name_prefix="dask-hpsearch-data"
        )
        self._in_progress: set[tuple[str, str]] = set()
        self._lock = threading.Lock()
        self.bytes_sent = 0

    def request(self, digest: str, worker: str) -> None:
        """Send a bundle to a worker in the background, unless it is being sent."""
        with self._lock, contextlib.suppress(RuntimeError):  # closed meanwhile
            if (digest, worker) not in self._in_progress:
                self._in_progress.add((digest, worker))
                self._threads.submit(self._send, digest, worker)

    def close(self) -> None:
        """Stop sending, and remove the search's files from the workers.

        They are the sent bundles, and the rows and steps that the slots of a node share.
        """
        self._threads.shutdown(wait=True, cancel_futures=True)
        if self._client.status == "running":
            with contextlib.suppress(Exception):  # workers that have left keep nothing
                self._client.run(
                    forget_bundles,
                    self._topic,
                    on_error="ignore",
                    callback_timeout=_FORGET_TIMEOUT_S,
                )

    def _send(self, digest: str, worker: str) -> None:
        ref = self._data_store.find(digest)
        try:
            if ref is not None:
                self._send_chunks(ref, worker)
        except Exception:
            _logger.info("cannot send data to %s", worker, exc_info=True)
        finally:
            with self._lock:
                self._in_progress.discard((digest, worker))

    def _send_chunks(self, ref: DataRef, worker: str) -> None:
        with ref.path.open("rb") as file:
            offset = 0
            while chunk := file.read(_CHUNK_BYTES):
                self._client.run(
                    receive_chunk,
                    ref.digest,
                    offset,
                    chunk,
                    ref.nbytes,
                    self._topic,
                    workers=[worker],
                )
                offset += len(chunk)
                self.bytes_sent += len(chunk)
