"""The models that a search trains by ``partial_fit``, read from its journal."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dask_hpsearch.exceptions import JournalMismatchError
from dask_hpsearch.journal.serialization import digest_of, is_of
from dask_hpsearch.journal.training_events import RoundEvent, TrainEvent
from dask_hpsearch.safe_text import repr_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from dask_hpsearch.journal.events import Event


@dataclass(frozen=True, slots=True)
class Training:
    """The part of a bracket that a journal has.

    Attributes
    ----------
    trained : dict of int to list of TrainEvent
        By model, with growing numbers of calls.
    rounds : dict of int to RoundEvent
        By ordinal.
    """

    trained: dict[int, list[TrainEvent]] = field(default_factory=dict)
    rounds: dict[int, RoundEvent] = field(default_factory=dict)

    def check(self, candidates: Sequence[Mapping[str, Any]], run_id: str) -> None:
        """Check that its events are those of some candidates.

        Raises
        ------
        JournalMismatchError
            If a model has other parameters; shows both digests.
        """
        for model, events in self.trained.items():
            known = model < len(candidates)
            for event in events:
                if known and is_of(event.digest, candidates[model]):
                    continue
                parameters = repr_of(candidates[model]) if known else "none"
                expected = digest_of(candidates[model]) if known else "none"
                msg = (
                    f"run {run_id}: the journal's training of model {model} is for "
                    f"parameters with digest {event.digest}, but the model has {parameters} "
                    f"({expected}): the folder holds parts of different runs; start the "
                    "search again as a new run"
                )
                raise JournalMismatchError(msg)


def trainings_of(events: Iterable[Event]) -> dict[int, Training]:
    """Sort the events of all brackets, of all generations.

    Two drivers of a run may have trained the same models: of two events with one number of
    calls, and of two decisions of one round, the earlier counts.
    """
    found: dict[int, Training] = {}
    for event in sorted(events, key=lambda one: one.time):
        if isinstance(event, TrainEvent):
            training = found.setdefault(event.call, Training())
            events_of_model = training.trained.setdefault(event.candidate, [])
            if all(one.calls != event.calls for one in events_of_model):
                events_of_model.append(event)
        elif isinstance(event, RoundEvent):
            training = found.setdefault(event.call, Training())
            training.rounds.setdefault(event.number, event)
    for training in found.values():
        for events_of_model in training.trained.values():
            events_of_model.sort(key=lambda one: one.calls)
    return found
