"""Fits that share a pipeline's first steps, and the order in which they go out. Pure.

On one node, the first fit of a group makes the steps that the others need; meanwhile the other
slots should begin other groups. On several nodes, each node would make these steps; so a group
goes out whole, as long as all slots stay busy.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

LONGEST_BATCH_S = 30.0
_MOST_LOOKED_AT = 256
_MOST_PER_BATCH = 500


class Grouped(Protocol):
    """A task that waits."""

    @property
    def steps_group(self) -> int | None:
        """The number of its group; None if it shares no steps."""


@dataclass(slots=True)
class StepGroups:
    """The groups of a call: which have begun, and whose steps are made."""

    _begun: set[int] = field(default_factory=set)
    _made: set[int] = field(default_factory=set)

    def begin(self, group: int | None) -> None:
        """Note that a fit was sent to a worker."""
        if group is not None and group not in self._made:
            self._begun.add(group)

    def end(self, group: int | None, *, ran: bool) -> None:
        """Note that a fit has ended, or came back without having run."""
        if group is not None:
            self._begun.discard(group)
            if ran:
                self._made.add(group)

    def is_made(self, group: int | None) -> bool:
        """Whether a fit of the group finds the shared steps; True without a group."""
        return group is None or group in self._made

    def is_being_made(self, group: int | None) -> bool:
        """Whether a fit of the group would wait for another one that makes the steps."""
        return group in self._begun

    def next_place(self, waiting: Iterable[Grouped]) -> int:
        """Return the place of the next task: the first whose steps are not being made."""
        ahead = itertools.islice(waiting, _MOST_LOOKED_AT)
        for place, task in enumerate(ahead):
            if not self.is_being_made(task.steps_group):
                return place
        return 0


def group_size(*, of_group: int, waiting: int, slots: int, mean_s: float | None) -> int:
    """Return how many of a group's waiting tasks go out together.

    All of them, if the other slots have as much work; otherwise equal parts, so that the group
    occupies no slot for longer than the others have work. In any case no more than
    `LONGEST_BATCH_S` of work, so that a worker that joins later finds work too.

    Parameters
    ----------
    of_group : int
        Waiting tasks of the group.
    waiting : int
        All waiting tasks.
    slots : int
        Slots that share them.
    mean_s : float or None
        Expected seconds of a task, if they are known.
    """
    share = max(1, waiting // max(slots, 1))
    if mean_s is not None:
        share = max(1, min(share, int(LONGEST_BATCH_S / max(mean_s, 1e-4))))
    parts = math.ceil(of_group / min(share, _MOST_PER_BATCH))
    return math.ceil(of_group / parts)
