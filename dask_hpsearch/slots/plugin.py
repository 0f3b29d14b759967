"""The plugin that gives slots to Dask workers, and the functions that run on workers.

Workers import this module; its functions are sent by reference.
"""

from __future__ import annotations

import functools
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distributed import Worker, WorkerPlugin, get_worker

from dask_hpsearch.messages import Batch, DataRef, encode_outcomes
from dask_hpsearch.slots.pool import SlotPool

if TYPE_CHECKING:
    from distributed import Client

    from dask_hpsearch.slots.disk_watch import DiskLoad
    from dask_hpsearch.slots.node_data import Reader

# Outcomes up to this size go to the client with the message that the batch has ended;
# larger ones wait to be fetched, which takes three messages more.
_MOST_BY_EVENT = 2**16
PLUGIN_NAME = "dask-hpsearch-slots"
# Names of the worker extensions by which the worker programs hand over a forkserver, an OOM
# record and a disk watch.
EARLY_FORKSERVER = "dask-hpsearch-forkserver"
OOM_RECORD = "dask-hpsearch-oom-record"
DISK_WATCH = "dask-hpsearch-disk-watch"


class SlotsPlugin(WorkerPlugin):
    """Gives a worker as many slots as it has threads; later workers get it too.

    Parameters
    ----------
    reader : Reader
        Reads data from elsewhere on the worker; it is pickled with the plugin.
    scheduler : str
        Id of the scheduler, which fits must not use as clients; "" if it is not known.
    """

    name = PLUGIN_NAME
    idempotent = True

    def __init__(self, reader: Reader, *, scheduler: str = "") -> None:
        self._reader = reader
        self._scheduler = scheduler

    @classmethod
    def for_cluster_of(cls, client: Client, reader: Reader) -> SlotsPlugin:
        """Make the plugin for the workers that a client is connected to."""
        identity = client._scheduler_identity  # noqa: SLF001 (known since it connected)
        return cls(reader, scheduler=str(identity.get("id", "")))

    def setup(self, worker: Worker) -> None:
        """Start the worker's forkserver."""
        limit = worker.memory_manager.memory_limit
        threads = worker.state.nthreads
        self.pool = SlotPool(
            Path(worker.local_directory),
            self._reader,
            share_bytes=None if limit is None else limit // threads,
            n_slots=threads,
            forkserver=worker.extensions.pop(EARLY_FORKSERVER, None),
            oom_record=worker.extensions.pop(OOM_RECORD, None),
            disk=worker.extensions.pop(DISK_WATCH, None),
            on_disk_load=functools.partial(_report_disk_load, worker),
            scheduler=self._scheduler,
        )
        self.pool.start()

    def teardown(self, worker: Worker) -> None:
        """End the worker's slots."""
        del worker
        self.pool.close()

    def __getstate__(self) -> dict[str, Any]:
        return {"_reader": self._reader, "_scheduler": self._scheduler}


def _report_disk_load(worker: Worker, load: DiskLoad) -> None:
    """Report to a fit's engine how much it has written, in case its pod is evicted."""
    topic, number = load.task
    report = {"writes": number, "nbytes": load.nbytes, "pod": socket.gethostname()}
    worker.log_event(topic, report)


def _pool(worker: Worker) -> SlotPool:
    plugin: Any = worker.plugins[PLUGIN_NAME]
    pool: SlotPool = plugin.pool
    return pool


def run_batch(payload: bytes) -> bytes:
    """Run a batch in a slot of this worker: the Dask task that the engine submits."""
    batch = Batch.from_bytes(payload)
    worker = get_worker()

    def ask(ref: DataRef) -> None:
        worker.log_event(batch.topic, {"need": ref.digest, "worker": worker.address})

    def report(outcomes: list[bytes]) -> None:
        encoded = encode_outcomes(outcomes)
        worker.log_event(batch.topic, {"batch": batch.number, "outcomes": encoded})

    outcomes = _pool(worker).run(batch, report, ask)
    if sum(map(len, outcomes)) > _MOST_BY_EVENT:
        return encode_outcomes(outcomes)
    report(outcomes)
    return encode_outcomes([])


def cancel_groups(groups: list[str], dask_worker: Worker) -> None:
    """End the running tasks of some joblib calls on this worker."""
    _pool(dask_worker).cancel(groups)


def end_task(topic: str, number: int, dask_worker: Worker) -> None:
    """End one task, if this worker runs it; the tasks behind it are given back."""
    _pool(dask_worker).end_task(topic, number)


def receive_chunk(  # noqa: PLR0917 (sent by position)
    digest: str, offset: int, chunk: bytes, nbytes: int, topic: str, dask_worker: Worker
) -> None:
    """Take a part of a bundle for the search with this topic."""
    _pool(dask_worker).data.receive(digest, offset, chunk, nbytes, topic)


def forget_bundles(topic: str, dask_worker: Worker) -> None:
    """Remove the bundles that only an ended search has used."""
    _pool(dask_worker).data.forget(topic)


def drain_slots(worker: Worker, seconds: float) -> None:
    """Let a worker's slots finish their tasks within some seconds, and begin no more."""
    if PLUGIN_NAME in worker.plugins:
        _pool(worker).drain(seconds)


def share_memory(nbytes: int, dask_worker: Worker) -> None:
    """Change a worker's memory limit; running fits keep their limit."""
    dask_worker.memory_manager.memory_limit = nbytes
    if PLUGIN_NAME in dask_worker.plugins:
        _pool(dask_worker).share_bytes = nbytes // dask_worker.state.nthreads


def release_slots(dask_worker: Worker) -> None:
    """End the idle slots, with what they have in memory; others take their place."""
    if PLUGIN_NAME in dask_worker.plugins:
        _pool(dask_worker).release()


def slot_pids(dask_worker: Worker) -> list[int]:
    """Return the processes of this worker's slots."""
    return _pool(dask_worker).pids()
