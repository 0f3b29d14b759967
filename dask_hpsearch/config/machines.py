"""CPU and memory that nodes of a machine type have for pods.

The amounts that GKE reserves are those of its page "Plan GKE Standard node sizes"
(cloud.google.com/kubernetes-engine/docs/concepts/plan-node-sizes).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_GIB = 2**30
_MIB = 2**20
_PREDEFINED = re.compile(
    r"(?P<family>[a-z]\d[a-z]?)-(?P<shape>standard|highmem|highcpu)-(?P<cpus>\d+)"
)
# GiB for each CPU, where all sizes of a family have the same.
_MEMORY_PER_CPU = {
    "standard": {
        **dict.fromkeys(
            ("c2", "c2d", "c3", "c3d", "e2", "n2", "n2d", "n4", "t2d"), 4.0
        ),
        "n1": 3.75,
    },
    "highmem": {
        **dict.fromkeys(("c2d", "c3", "c3d", "e2", "n2", "n2d", "n4"), 8.0),
        "n1": 6.5,
    },
    "highcpu": {
        **dict.fromkeys(("e2", "n2", "n2d"), 1.0),
        **dict.fromkeys(("c2d", "c3", "c3d", "n4"), 2.0),
        "n1": 0.9,
    },
}
# Of each further piece of a node's memory (GiB), the share that GKE reserves.
_RESERVED_MEMORY = ((4, 0.25), (4, 0.20), (8, 0.10), (112, 0.06), (10_000, 0.02))
_EVICTION = 100 * _MIB
# Approximate requests of GKE's own pods on every node: network, logs, metrics, identity.
_SYSTEM_CPU_MILLIS = 400
_SYSTEM_MEMORY = 500 * _MIB


@dataclass(frozen=True, slots=True)
class Machine:
    """A node's size.

    Attributes
    ----------
    cpus : int
    memory : int
        Bytes.
    """

    cpus: int
    memory: int

    @property
    def pod_cpu_millis(self) -> int:
        """Thousandths of a CPU that are left for other pods."""
        reserved = 60 + (10 if self.cpus > 1 else 0)
        reserved += 5 * min(max(self.cpus - 2, 0), 2)
        reserved += int(2.5 * max(self.cpus - 4, 0))
        return self.cpus * 1000 - reserved - _SYSTEM_CPU_MILLIS

    @property
    def pod_memory(self) -> int:
        """Bytes of memory that are left for other pods."""
        rest, reserved = self.memory / _GIB, 0.0
        for piece, share in _RESERVED_MEMORY:
            reserved += share * min(rest, piece)
            rest -= min(rest, piece)
        return self.memory - int(reserved * _GIB) - _EVICTION - _SYSTEM_MEMORY


def machine(machine_type: str) -> Machine | None:
    """Return a machine type's size; None if the type is unknown."""
    match = _PREDEFINED.fullmatch(machine_type)
    if match is None:
        return None
    per_cpu = _MEMORY_PER_CPU[match["shape"]].get(match["family"])
    if per_cpu is None:
        return None
    cpus = int(match["cpus"])
    return Machine(cpus, int(cpus * per_cpu * _GIB))


def shortage(node: Machine, *, cpu: int, memory: int) -> str:
    """Return a description of what a node has for pods, if a pod requests more.

    Parameters
    ----------
    node : Machine
    cpu : int
        Thousandths of a CPU that the pod requests.
    memory : int
        Bytes that the pod requests.
    """
    if cpu <= node.pod_cpu_millis and memory <= node.pod_memory:
        return ""
    cpus = node.pod_cpu_millis / 1000
    return f"about {cpus:.1f} CPUs and {node.pod_memory / _GIB:.1f}Gi"
