"""CPU and memory that nodes of a machine type have for pods, and the disks that they take.

The amounts, with their sources, are in ``machines.toml``.
"""

from __future__ import annotations

import functools
import math
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_GIB = 2**30
_MIB = 2**20
_PREDEFINED = re.compile(
    r"(?P<family>[a-z]\d[a-z]?)-(?P<shape>standard|highmem|highcpu)-(?P<cpus>\d+)"
)


@dataclass(frozen=True, slots=True)
class Room:
    """CPU and memory that pods may request.

    Attributes
    ----------
    cpu : int
        Thousandths of a CPU.
    memory : int
        Bytes.
    """

    cpu: int
    memory: int

    def __sub__(self, other: Room) -> Room:
        """Return the rest, 0 or more."""
        return Room(max(self.cpu - other.cpu, 0), max(self.memory - other.memory, 0))

    def __add__(self, other: Room) -> Room:
        """Return the sum."""
        return Room(self.cpu + other.cpu, self.memory + other.memory)

    def fits(self, pod: Room) -> bool:
        """Whether a pod's request fits."""
        return pod.cpu <= self.cpu and pod.memory <= self.memory

    def __str__(self) -> str:
        """Describe it, for an error."""
        return f"about {self.cpu / 1000:.1f} CPUs and {self.memory / _GIB:.1f}Gi"


@dataclass(frozen=True, slots=True)
class Machine:
    """A node's size.

    Attributes
    ----------
    cpus : int
    memory : int
        Bytes, as Google names and bills it; the node itself shows less.
    allocatable : Room
        As ``kubectl get node`` shows it.
    """

    cpus: int
    memory: int
    allocatable: Room

    @property
    def room(self) -> Room:
        """What GKE's pods on every node leave for other pods."""
        return self.allocatable - requests_of("every_node")

    @property
    def pod_cpu_millis(self) -> int:
        """Thousandths of a CPU that are left for other pods."""
        return self.room.cpu

    @property
    def pod_memory(self) -> int:
        """Bytes of memory that are left for other pods."""
        return self.room.memory


def machine(machine_type: str) -> Machine | None:
    """Return a machine type's size; None if the type is unknown."""
    match = _PREDEFINED.fullmatch(machine_type)
    if match is None:
        return None
    per_cpu = _table()["memory_per_cpu"][match["shape"]].get(match["family"])
    if per_cpu is None:
        return None
    cpus = int(match["cpus"])
    gib = cpus * per_cpu
    return Machine(cpus, int(gib * _GIB), _allocatable(machine_type, cpus, gib))


def requests_of(pods: str) -> Room:
    """Return the requests of a group of pods of ``machines.toml``, as "every_node"."""
    found = _table()[pods]
    return Room(found["cpu_millis"], found["memory_mib"] * _MIB)


def disk_types(machine_type: str) -> tuple[str, ...]:
    """Return the disk types that a machine type's nodes take; empty if unknown."""
    return tuple(_table()["disks"].get(machine_type.partition("-")[0], ()))


def _allocatable(machine_type: str, cpus: int, gib: float) -> Room:
    """Return what a node has for all pods: as measured, else as GKE documents it."""
    table = _table()
    measured = table["allocatable"].get(machine_type)
    if measured is not None:
        millis, measured_gib = measured
        return Room(millis, int(measured_gib * _GIB))
    missing, reserved = table["capacity"], table["reserved"]
    shown = gib * (1 - missing["missing_share"]) - missing["missing_gib"]
    kept = _kept(shown, reserved["memory_gib"])
    memory = int((shown - kept) * _GIB) - reserved["eviction_mib"] * _MIB
    millis = math.ceil(round(_kept(cpus, reserved["cpus"]) * 1000, 6))
    return Room(cpus * 1000 - millis, max(memory, 0))


def _kept(amount: float, pieces: list[list[float]]) -> float:
    """Return the sum of shares of each further piece of an amount."""
    kept = 0.0
    for piece, share in pieces:
        kept += share * min(amount, piece)
        amount -= min(amount, piece)
    return kept


@functools.cache
def _table() -> dict[str, Any]:
    path = Path(__file__).with_name("machines.toml")
    return tomllib.loads(path.read_text(encoding="utf-8"))
