"""Runs batches of tasks in a worker's slots; the death of a slot ends only its fit."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from dask_hpsearch.concurrency import poll_until
from dask_hpsearch.exceptions import HPSearchError
from dask_hpsearch.messages import STOP_SIGN, Batch, DataRef
from dask_hpsearch.slots.batch_run import BatchRun, without_data
from dask_hpsearch.slots.node_data import NodeData, Reader
from dask_hpsearch.slots.oom_record import Load, OOMRecord
from dask_hpsearch.slots.slot import Forkserver, ForkserverLostError, Slot

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from dask_hpsearch.slots.disk_watch import DiskLoad, DiskWatch

_MEMORY_CHECK_S = 0.1
_DISK_CHECK_S = 1.0
_DISK_CHECK_PART = 20  # checks take at most a twentieth of the time
_NEAR_SHARE_CHECK_S = 0.02  # a fit can fill memory within a tenth of a second
_DRAIN_LOOK_S = 0.05
_KEPT_PART = 10  # a slot keeps a tenth of its share for steps that fits share


class SlotPool:
    """The slots of one worker.

    Parameters
    ----------
    folder : Path
        Holds the bundles that the client sends.
    reader : Reader
        Reads data from elsewhere.
    share_bytes : int or None
        Private memory that one slot may use; None: no limit.
    n_slots : int
        Slots of the worker: a fit may use the threads of those that are free.
    forkserver : Forkserver, optional
        One that was started already.
    oom_record : OOMRecord, optional
        Notes which fit uses most when memory is short; default: one in the folder.
    disk : DiskWatch, optional
        Limits how much fits write, if the worker's disk is limited.
    on_disk_load : callable
        Called with a fit that may be about to fill the disk.
    scheduler : str
        Id of the worker's scheduler, which fits must not use as clients.

    Attributes
    ----------
    share_bytes : int or None
        As given; a change applies to batches that begin after it.
    modules : dict of str to str
        Digests of the user modules that the worker was sent, by name.
    """

    def __init__(
        self,
        folder: Path,
        reader: Reader,
        *,
        share_bytes: int | None,
        n_slots: int = 1,
        forkserver: Forkserver | None = None,
        oom_record: OOMRecord | None = None,
        disk: DiskWatch | None = None,
        on_disk_load: Callable[[DiskLoad], None] = lambda _: None,
        scheduler: str = "",
    ) -> None:
        self._disk = disk
        self._on_disk_load = on_disk_load
        self._oom_record = oom_record or OOMRecord(folder)
        self.data = NodeData(folder, reader)
        self.share_bytes = share_bytes
        self._forkserver = forkserver
        self._scheduler = scheduler
        self._idle: list[Slot] = []
        self._busy: dict[Slot, str] = {}
        self._n_slots = n_slots
        self._lent: dict[Slot, int] = {}
        self._cancelled: set[str] = set()
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._draining = threading.Event()
        self.modules: dict[str, str] = {}
        self._module_places: dict[str, str] = {}
        self._seen: dict[str, str] = {}
        self._generation = 0

    def start(self) -> None:
        """Start the forkserver, so that its imports are done before the first fit."""
        with self._lock:
            self._running_forkserver()
        threading.Thread(
            target=self._watch_memory, name="dask-hpsearch-memory", daemon=True
        ).start()
        if self._disk is not None:
            threading.Thread(
                target=self._watch_disk,
                args=(self._disk,),
                name="dask-hpsearch-disk",
                daemon=True,
            ).start()

    def run(
        self,
        batch: Batch,
        report: Callable[[list[bytes]], None],
        ask: Callable[[DataRef], None],
    ) -> list[bytes]:
        """Run a batch and return an encoded outcome for each task.

        Parameters
        ----------
        batch : Batch
        report : callable
            Called with outcomes that are known long before the batch's end.
        ask : callable
            Asks the client for a bundle that is not on this machine.
        """
        with ExitStack() as stack:
            try:
                paths = stack.enter_context(self._data(batch, ask))
            except HPSearchError as error:
                if not self._ended(batch.group):
                    return without_data(batch.tasks, error)
                paths = {}
            return self._run(BatchRun(batch, report), batch, paths)

    def _run(self, run: BatchRun, batch: Batch, paths: dict[str, str]) -> list[bytes]:
        while run.waiting and not self._ended(batch.group):
            slot = None
            try:
                slot = self._take(batch.group)
                slot.send(
                    (
                        tuple(run.waiting),
                        paths,
                        self._places(),
                        self._kept_bytes(),
                        self.data.shared_folder(batch.topic, self._code_of(slot)),
                        self._lend(slot, batch.later),
                    )
                )
                run.follow(slot)
                self._give_back(slot)
            except ForkserverLostError:
                run.give_back_all()
            except EOFError:
                self._drop(slot)
                run.note_death(slot, excused=self._ended(batch.group))
                if slot is not None:
                    slot.close()
        run.give_back_all()
        return run.outcomes

    def cancel(self, groups: list[str]) -> None:
        """End the running tasks of some joblib calls; return those yet to start."""
        with self._lock:
            self._cancelled.update(groups)
            slots = [slot for slot, group in self._busy.items() if group in groups]
        for slot in slots:
            slot.end("cancelled")
        self.data.look_again()

    def end_task(self, topic: str, number: int) -> None:
        """End the slot that runs a task; the tasks behind it are given back."""
        for slot in self._busy_now():
            if slot.task == (topic, number):
                slot.end("cancelled")

    def drain(self, seconds: float) -> None:
        """Begin no more tasks; wait for running ones, and give back those that take longer.

        Parameters
        ----------
        seconds : float
            How long running tasks may take.
        """
        self._draining.set()
        self.data.look_again()
        for slot in self._busy_now():
            slot.send(STOP_SIGN)
        busy = poll_until(
            self._busy_now,
            lambda slots: not slots,
            timeout=seconds,
            interval=_DRAIN_LOOK_S,
        )
        for slot in busy:
            slot.end("cancelled")

    def close(self) -> None:
        """End everything; running fits end unfinished."""
        self._closing.set()
        self.data.look_again()
        with self._lock:
            forkserver, self._forkserver = self._forkserver, None
            self._idle.clear()
        if forkserver is not None:
            forkserver.close()
        self.data.close()
        self._oom_record.clear()

    def put_module(self, name: str, place: str, digest: str) -> None:
        """Let slots import a module from a file, before any other of that name."""
        with self._lock:
            self.modules[name] = digest
            self._module_places[name] = place
        self._renew()

    def saw_modules(self, digests: dict[str, str]) -> None:
        """Replace the slots if the file of a module has changed."""
        changed = any(self._seen.get(name, one) != one for name, one in digests.items())
        self._seen |= digests
        if changed:
            self._renew()

    def release(self) -> None:
        """Let the slots end, busy ones after what they run, and let go of their memory."""
        self._renew()

    def pids(self) -> list[int]:
        """Return the processes of the slots that exist now."""
        with self._lock:
            return [slot.pid for slot in (*self._idle, *self._busy)]

    def _places(self) -> list[str]:
        """Return the folders and archives where slots look for modules."""
        with self._lock:
            return [*self._module_places.values(), *sys.path]

    def _renew(self) -> None:
        """End slots that may have imported an older module; busy ones after their batch."""
        with self._lock:
            self._generation += 1
            idle, self._idle = self._idle, []
        for slot in idle:
            slot.close()

    def _code_of(self, slot: Slot) -> str:
        """Tell apart the versions of user modules that a slot may have imported."""
        with self._lock:
            modules = sorted({**self._seen, **self.modules}.items())
            return f"{slot.generation} {modules}"

    def _kept_bytes(self) -> int | None:
        """Return the memory for steps that a slot's fits share."""
        return None if self.share_bytes is None else self.share_bytes // _KEPT_PART

    def _busy_now(self) -> list[Slot]:
        with self._lock:
            return list(self._busy)

    def _data(
        self, batch: Batch, ask: Callable[[DataRef], None]
    ) -> AbstractContextManager[dict[str, str]]:
        return self.data.using(
            batch.data,
            ask,
            user=batch.topic,
            given_up=lambda: self._ended(batch.group),
        )

    def _ended(self, group: str) -> bool:
        return self._leaving() or group in self._cancelled

    def _leaving(self) -> bool:
        return self._closing.is_set() or self._draining.is_set()

    def _running_forkserver(self) -> Forkserver:
        if self._closing.is_set():
            raise ForkserverLostError
        if self._forkserver is None or self._forkserver.lost:
            self._idle.clear()
            self._forkserver = Forkserver(sys.path)
        return self._forkserver

    def _take(self, group: str) -> Slot:
        with self._lock:
            generation = self._generation
            forkserver = self._running_forkserver()
            slot = self._idle.pop() if self._idle else None
            while slot is not None and slot.is_dead():
                slot.close()
                slot = self._idle.pop() if self._idle else None
        if slot is None:
            slot = forkserver.fork(self._scheduler)
            slot.generation = generation
        slot.share_bytes = self.share_bytes
        with self._lock:
            self._busy[slot] = group
            unwanted = self._ended(group)  # it may have been cancelled meanwhile
        if unwanted:
            slot.end("cancelled")
        return slot

    def _lend(self, slot: Slot, later: int | None) -> int:
        """Return how many slots' threads a slot may use: its own, and free ones.

        Parameters
        ----------
        slot : Slot
        later : int or None
            Fits that will need a slot too; None: it is not known.
        """
        with self._lock:
            others = [self._lent.get(one, 1) for one in self._busy if one is not slot]
            most = 1 if later is None else self._n_slots // (1 + later)
            self._lent[slot] = max(1, min(most, self._n_slots - sum(others)))
            return self._lent[slot]

    def _give_back(self, slot: Slot) -> None:
        with self._lock:
            del self._busy[slot]
            self._lent.pop(slot, None)
            current = slot.generation == self._generation
            usable = current and not slot.leaves and slot.ended_for is None
            if usable:
                self._idle.append(slot)
        if not usable:
            slot.close()

    def _drop(self, slot: Slot | None) -> None:
        with self._lock:
            if slot is not None:
                self._busy.pop(slot, None)
                self._lent.pop(slot, None)

    def _watch_memory(self) -> None:
        """Note the memory use of busy slots, and end one that exceeds its share."""
        pause = _MEMORY_CHECK_S
        while not self._closing.wait(pause):
            large = [load for slot in self._busy_now() if (load := self._weigh(slot))]
            pause = _NEAR_SHARE_CHECK_S if large else _MEMORY_CHECK_S
            self._oom_record.note(large)

    def _watch_disk(self, disk: DiskWatch) -> None:
        """Check how much fits write, as often as that is cheap."""
        pause = _DISK_CHECK_S
        while not self._closing.wait(pause):
            began = time.monotonic()
            with self._lock:
                busy, idle = list(self._busy), list(self._idle)
            disk.look(busy, idle, self._on_disk_load)
            took = time.monotonic() - began
            pause = max(_DISK_CHECK_S, _DISK_CHECK_PART * took)

    def _weigh(self, slot: Slot) -> Load | None:
        """Measure a slot's memory; return it if it is more than half of the share."""
        share = slot.share_bytes
        half = None if share is None else share // 2
        used = slot.private_bytes(enough=half)
        slot.peak_bytes = max(slot.peak_bytes, used)
        if share is None or half is None or used <= half:
            return None
        if used > share:
            slot.end("memory")
        topic, number = slot.task
        return Load(topic, number, used)
