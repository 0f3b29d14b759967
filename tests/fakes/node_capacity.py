"""What GKE's nodes have for pods: as measured, independently of the package's table.

Capacities and allocatable amounts are those that 2i2c has read from its nodes by ``kubectl get
node`` (2i2c-org/infrastructure, ``instance_capacities.yaml``). Between measured sizes, capacity
is interpolated, and less what GKE documents that it keeps.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

GIB = 2**30
# Nominal memory of a machine, and what its node lacks of it, in GiB.
MISSING = (
    (0.0, 0.1),
    (7.5, 0.224),
    (16.0, 0.369),
    (26.0, 0.549),
    (30.0, 0.613),
    (32.0, 0.643),
    (60.0, 1.13),
    (64.0, 1.191),
    (128.0, 2.193),
    (256.0, 4.103),
    (4096.0, 65.6),
)
# Nominal memory in GiB; then allocatable: thousandths of a CPU, GiB.
MEASURED = {
    "e2-standard-4": (16.0, 3920, 12.97),
    "e2-highmem-16": (128.0, 15890, 116.549),
    "n1-standard-2": (7.5, 1930, 5.483),
    "n1-standard-8": (30.0, 7910, 25.888),
    "n1-standard-16": (60.0, 15890, 53.571),
    "n1-highmem-4": (26.0, 3920, 22.192),
    "n2-highmem-2": (16.0, 1930, 12.972),
    "n2-highmem-4": (32.0, 3920, 27.738),
    "n2-highmem-8": (64.0, 7910, 57.27),
    "n2-highmem-16": (128.0, 15890, 116.549),
    "n2-highmem-32": (256.0, 31850, 240.079),
}
# What GKE's own pods request on every node of GKE 1.30 and later.
OWN_MILLIS, OWN_BYTES = 600, GIB


@dataclass(slots=True)
class Node:
    """What is left of a node for pods."""

    millis: int
    nbytes: int

    def put(self, millis: int, nbytes: int) -> bool:
        """Schedule a pod, if it fits."""
        if millis > self.millis or nbytes > self.nbytes:
            return False
        self.millis -= millis
        self.nbytes -= nbytes
        return True


def node(machine_type: str, cpus: int, gib: float) -> Node:
    """Return a new node, with only GKE's own pods."""
    measured = MEASURED.get(machine_type)
    millis, left = measured[1:] if measured else (_millis(cpus), _gib(gib))
    return Node(millis - OWN_MILLIS, int(left * GIB) - OWN_BYTES)


def _millis(cpus: int) -> int:
    kept = [60.0, 10.0, 5.0, 5.0]
    return int(cpus * 1000 - sum(kept[:cpus]) - 2.5 * max(cpus - 4, 0))


def _gib(gib: float) -> float:
    """Return allocatable memory, as GKE documents it, of what a node shows."""
    (below, less), (above, more) = next(
        pair for pair in itertools.pairwise(MISSING) if pair[0][0] <= gib <= pair[1][0]
    )
    shown = gib - less - (more - less) * (gib - below) / (above - below)
    kept, start = 0.0, 0.0
    for end, share in ((4, 0.25), (8, 0.2), (16, 0.1), (128, 0.06), (10_000, 0.02)):
        kept += share * max(min(shown, end) - start, 0.0)
        start = end
    return shown - kept - 100 / 1024
