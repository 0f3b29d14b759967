"""The journal of a run for its driver: earlier events are read, new ones are appended."""

from __future__ import annotations

import contextlib
import math
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from dask_hpsearch.exceptions import JournalMismatchError, ObjectNotFoundError
from dask_hpsearch.identity import IdentityMemo
from dask_hpsearch.journal.events import (
    AskEvent,
    CallEvent,
    DropEvent,
    FitEvent,
    HeartbeatEvent,
    ReportEvent,
    TellEvent,
)
from dask_hpsearch.journal.exploration import Exploration, exploration_of, key_of
from dask_hpsearch.journal.segments import JournalReader, JournalWriter
from dask_hpsearch.journal.serialization import (
    decode_result,
    digest_of,
    encode_result,
    is_of,
    shown,
    shown_value,
)
from dask_hpsearch.journal.training_events import RoundEvent, TrainEvent
from dask_hpsearch.journal.trainings import trainings_of
from dask_hpsearch.safe_text import repr_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from dask_hpsearch.exceptions import StoreError
    from dask_hpsearch.journal.events import Event
    from dask_hpsearch.journal.folder import RunFolder

OfCall = TypeVar("OfCall", CallEvent, AskEvent, DropEvent, ReportEvent, TellEvent)
_LONG_FIT_S = 0.5
_DIGESTS_KEPT = 1000


@dataclass(slots=True)
class StoredCall:
    """Candidates and splits of one ``evaluate_candidates`` call, as they were.

    Attributes
    ----------
    results : dict
        Finished fits by (candidate, split).
    dropped : set of int
        Candidates of which no further fit begins.
    """

    candidates: list[dict[str, Any]]
    splits: list[tuple[Any, Any]]
    more_results: Mapping[str, Sequence[Any]] | None
    results: dict[tuple[int, int], dict[str, Any]] = field(default_factory=dict)
    dropped: set[int] = field(default_factory=set)

    def results_for(
        self, candidates: Sequence[Mapping[str, Any]]
    ) -> dict[tuple[int, int], dict[str, Any]]:
        """Results of the same parameters, by the ordinals of these candidates."""
        mine: dict[int, dict[int, dict[str, Any]]] = {}
        for (candidate, split), result in self.results.items():
            mine.setdefault(candidate, {})[split] = result
        found = {}
        for candidate, source in enumerate(self._sources(candidates)):
            for split, result in mine.get(source, {}).items():
                found[candidate, split] = result
        return found

    def dropped_for(self, candidates: Sequence[Mapping[str, Any]]) -> set[int]:
        """Return which of these candidates have the parameters of dropped ones."""
        if not self.dropped:
            return set()
        sources = enumerate(self._sources(candidates))
        return {candidate for candidate, source in sources if source in self.dropped}

    def _sources(self, candidates: Sequence[Mapping[str, Any]]) -> Iterator[int]:
        """Yield which of the own candidates each one is; -1 if it is none."""
        own = [digest_of(one) for one in self.candidates]
        at = {digest: index for index, digest in enumerate(own)}
        for candidate, digest in enumerate(map(digest_of, candidates)):
            same_place = own[candidate : candidate + 1] == [digest] or any(
                one is candidates[candidate] for one in self.candidates[candidate:][:1]
            )
            yield candidate if same_place else at.get(digest, -1)


class RunJournal:
    """The journal of one run, for its driver.

    Parameters
    ----------
    folder : RunFolder
        Writable.
    generation : int
        How often the run was extended.
    on_error : callable
        Called once if events cannot be written.
    on_splits : callable
        Called with the splits of each call that begins.

    Attributes
    ----------
    earlier : JournalContent
        What earlier drivers have written.
    spent_usd, spent_earlier_usd : float
        Cost of the run so far, and the part of earlier generations.
    trainings : dict of int to Training
        The models that earlier drivers have trained, by bracket.
    has_models : bool
        Whether models of the run have states in its folder.
    """

    def __init__(
        self,
        folder: RunFolder,
        *,
        generation: int = 0,
        on_error: Callable[[StoreError], None] = lambda _: None,
        on_splits: Callable[[Sequence[Any]], None] = lambda _: None,
    ) -> None:
        key = folder.signing_key()
        self.folder = folder
        self.generation = generation
        self.earlier = JournalReader(
            folder.store, folder.run_id, folder.manifest.public
        ).read()
        notes = self.earlier.notes()
        self._begun = _by_call(notes, CallEvent)
        self._asks = _by_call(notes, AskEvent)
        self._reports = _by_call(notes, ReportEvent)
        self._tells = _by_call(notes, TellEvent)
        self._drops = _by_call(notes, DropEvent)
        self.trainings = trainings_of(notes)
        self.has_models = bool(self.trainings)
        spent = [
            (one.generation, one.cost_usd)
            for one in notes
            if isinstance(one, HeartbeatEvent) and one.cost_usd is not None
        ]
        self.spent_usd = max((usd for _, usd in spent), default=0.0)
        self.spent_earlier_usd = max(
            (usd for number, usd in spent if number < generation), default=0.0
        )
        self.give_up = on_error
        self._on_splits = on_splits
        self._digests: IdentityMemo[str] = IdentityMemo()
        self._writer = JournalWriter(
            folder.store, folder.run_id, key, on_error=on_error
        )

    def stored_call(self, ordinal: int) -> StoredCall | None:
        """Return a call that was begun before, with the results of its finished fits.

        A driver that was killed may have stored the call without its event, or without
        all results of an earlier generation: both are appended now.

        Raises
        ------
        JournalMismatchError
            If a result belongs to other parameters than its candidate's.
        """
        call = self._load_call(ordinal, self.generation)
        if call is None:
            return None
        if (ordinal, self.generation) not in self._begun:
            self._note_call(ordinal, call)
        earlier = self.earlier_call(ordinal)
        before = {} if earlier is None else earlier.results_for(call.candidates)
        for fit in before.keys() - call.results.keys():
            call.results[fit] = before[fit]
            self._take_over(ordinal, fit, call.candidates[fit[0]], before[fit])
        dropped = set() if earlier is None else earlier.dropped_for(call.candidates)
        for candidate in sorted(dropped - call.dropped):
            call.dropped.add(candidate)
            self.dropped(ordinal, candidate, call.candidates[candidate])
        return call

    def earlier_call(self, ordinal: int) -> StoredCall | None:
        """Return a call as it was before the run was extended."""
        for generation in range(self.generation - 1, -1, -1):
            call = self._load_call(ordinal, generation)
            if call is not None:
                return call
        return None

    def _load_call(self, ordinal: int, generation: int) -> StoredCall | None:
        try:
            kept = self.folder.load_pickle(_call_name(ordinal, generation))
        except ObjectNotFoundError:
            return None
        call = StoredCall(**kept)
        self._add_results(call, ordinal, generation)
        return call

    def begin_call(
        self,
        ordinal: int,
        candidates: list[dict[str, Any]],
        splits: list[tuple[Any, Any]],
        more_results: Mapping[str, Sequence[Any]] | None,
    ) -> bool:
        """Store a new call; False if another driver has begun it meanwhile."""
        self._on_splits(splits)
        kept: dict[str, Any] = {
            "candidates": candidates,
            "splits": splits,
            "more_results": more_results,
        }
        if not self.folder.create_pickle(_call_name(ordinal, self.generation), kept):
            return False
        self._note_call(ordinal, StoredCall(**kept))
        return True

    def _note_call(
        self, ordinal: int, call: StoredCall, *, n_candidates: int | None = None
    ) -> None:
        extra = {
            name: [shown_value(one) for one in values]
            for name, values in (call.more_results or {}).items()
        }
        event = CallEvent(
            generation=self.generation,
            time=time.time(),
            call=ordinal,
            n_splits=len(call.splits),
            params=[shown(one) for one in call.candidates],
            extra=extra,
            n_candidates=n_candidates,
        )
        self.note(event)

    def explores(self, ordinal: int) -> bool | None:
        """Whether a call was begun as an exploration; None if it is new."""
        for generation in range(self.generation, -1, -1):
            with contextlib.suppress(ObjectNotFoundError):
                kept = self.folder.load_pickle(_call_name(ordinal, generation))
                return not kept["candidates"]
        return None

    def begin_exploration(
        self,
        ordinal: int,
        splits: list[tuple[Any, Any]],
        *,
        n_candidates: int,
        more_results: Mapping[str, Sequence[Any]] | None = None,
    ) -> Exploration:
        """Begin a call whose candidates are asked one by one, or continue it.

        The asks of an earlier generation are repeated in the new one.

        Parameters
        ----------
        ordinal : int
        splits : list of (train, test)
        n_candidates : int
            How many candidates are expected.
        more_results : mapping of str to list, optional
            Further columns, with one value for all candidates.
        """
        kept: dict[str, Any]
        kept = {"candidates": [], "splits": splits, "more_results": more_results}
        earlier = self._load_exploration(ordinal, range(self.generation - 1, -1, -1))
        if earlier is not None:
            kept["splits"] = earlier.splits
        self._on_splits(kept["splits"])
        name = _call_name(ordinal, self.generation)
        found = Exploration(kept["splits"])
        if not self.folder.create_pickle(name, kept):
            stored = self._load_exploration(ordinal, [self.generation])
            assert stored is not None  # noqa: S101 (it is there: it was not created)
            found = stored
        if (ordinal, self.generation) not in self._begun:
            self._note_call(ordinal, StoredCall(**kept), n_candidates=n_candidates)
        if earlier is not None:
            self._take_over_asks(ordinal, found, earlier)
        return found

    def _take_over_asks(
        self, ordinal: int, found: Exploration, earlier: Exploration
    ) -> None:
        """Add the steps and results of an earlier generation that are missing."""
        known = set(map(key_of, found.steps))
        for step in earlier.steps:
            if key_of(step) not in known:
                found.steps.append(step)
                self._writer.append(replace(step, generation=self.generation))
        for candidate, asked in earlier.asks.items():
            found.asks.setdefault(candidate, asked)
        for fit, result in earlier.results.items():
            if fit not in found.results:
                found.results[fit] = result
                self._take_over(ordinal, fit, earlier.asks[fit[0]][1], result)
        for candidate in sorted(earlier.dropped - found.dropped):
            found.dropped.add(candidate)
            self.dropped(ordinal, candidate, earlier.asks[candidate][1])

    def _take_over(
        self,
        ordinal: int,
        fit: tuple[int, int],
        parameters: Mapping[str, Any],
        result: Mapping[str, Any],
    ) -> None:
        self.fit_finished(
            ordinal, *fit, parameters, result, shown_as_finished=lambda: None
        )

    def _load_exploration(
        self, ordinal: int, generations: Iterable[int]
    ) -> Exploration | None:
        for generation in generations:
            try:
                kept = self.folder.load_pickle(_call_name(ordinal, generation))
            except ObjectNotFoundError:
                continue
            key = ordinal, generation
            steps = (self._asks, self._reports, self._tells)
            return exploration_of(
                kept["splits"],
                [step for one in steps for step in one.get(key, [])],
                self.earlier.fits(*key),
                self._drops.get(key, []),
            )
        return None

    def asked(
        self, ordinal: int, candidate: int, space: int, parameters: Mapping[str, Any]
    ) -> None:
        """Append an ask; its results come after it, never before."""
        event = AskEvent(
            generation=self.generation,
            time=time.time(),
            call=ordinal,
            candidate=candidate,
            space=space,
            digest=self._digest_of(parameters),
            encoded=encode_result(parameters),
            params=shown(parameters),
        )
        self._writer.append(event)

    def told(
        self,
        ordinal: int,
        candidate: int,
        space: int,
        value: float,
        *,
        trial: str | None = None,
    ) -> None:
        """Append the value that a strategy was told for a candidate.

        Parameters
        ----------
        trial : str, optional
            The state of an Optuna trial.
        """
        event = TellEvent(
            generation=self.generation,
            time=time.time(),
            call=ordinal,
            candidate=candidate,
            space=space,
            value=value if math.isfinite(value) else None,
            trial=trial,
        )
        self._writer.append(event)

    def reported(
        self,
        ordinal: int,
        candidate: int,
        step: int,
        values: Sequence[float],
        *,
        pruned: bool,
        marks: Mapping[str, Any],
    ) -> None:
        """Append scores that were reported to a pruner, and its decision."""
        event = ReportEvent(
            generation=self.generation,
            time=time.time(),
            call=ordinal,
            candidate=candidate,
            step=step,
            values=tuple(None if math.isnan(one) else one for one in values),
            pruned=pruned,
            marks=dict(marks) or None,
        )
        self._writer.append(event)

    def fit_finished(
        self,
        ordinal: int,
        candidate: int,
        split: int,
        parameters: Mapping[str, Any],
        result: Mapping[str, Any],
        *,
        shown_as_finished: Callable[[], None],
    ) -> None:
        """Append a result; it may be displayed once it is in the store."""
        event = FitEvent(
            generation=self.generation,
            time=time.time(),
            call=ordinal,
            candidate=candidate,
            split=split,
            digest=self._digest_of(parameters),
            result=encode_result(result),
        )
        long = float(result.get("fit_time") or 0.0) > _LONG_FIT_S
        self._writer.append(event, on_flushed=shown_as_finished, soon=long)

    def dropped(
        self,
        ordinal: int,
        candidate: int,
        parameters: Mapping[str, Any],
        *,
        shown_as_dropped: Callable[[], None] = lambda: None,
    ) -> None:
        """Append that a candidate is dropped; it may be displayed once it is in the store."""
        event = DropEvent(
            generation=self.generation,
            time=time.time(),
            call=ordinal,
            candidate=candidate,
            digest=self._digest_of(parameters),
        )
        self._writer.append(event, on_flushed=shown_as_dropped)

    # --- models that are trained by partial_fit ------------------------------------------

    def made_once(self, name: str, make: Callable[[], Any]) -> Any:
        """Return an object that the run's first driver has made, and later ones read.

        Parameters
        ----------
        name : str
            Of the object in the run's folder.
        make : callable
            Makes it.

        Raises
        ------
        StoreError
            If it cannot be written or read.
        """
        with contextlib.suppress(ObjectNotFoundError):
            return self.folder.load_pickle(name)
        value = make()
        if self.folder.create_pickle(name, value):
            return value
        return self.folder.load_pickle(name)

    def begin_training(
        self, call: int, candidates: list[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        """Store the parameters of a bracket's models; return those that are stored."""
        stored: list[dict[str, Any]] = self.made_once(
            f"brackets/{call:05d}.pkl", lambda: candidates
        )
        self.has_models = True
        if not any(ordinal == call for ordinal, _ in self._begun):
            self._note_call(call, StoredCall(stored, splits=[], more_results=None))
        return stored

    def trained(
        self,
        call: int,
        model: int,
        parameters: Mapping[str, Any],
        *,
        calls: int,
        state: str,
        result: Mapping[str, Any],
        on_written: Callable[[], None],
    ) -> None:
        """Append that a model was trained, once its state is stored.

        Parameters
        ----------
        call, model : int
        parameters : mapping
            Of the model.
        calls : int
            Calls of ``partial_fit`` that made it.
        state : str
            The name of its state.
        result : mapping
            Times, and its score.
        on_written : callable
            Called once the event is in the store: only then may it be displayed, and the
            state before be removed.
        """
        event = TrainEvent(
            generation=self.generation,
            time=time.time(),
            call=call,
            candidate=model,
            digest=self._digest_of(parameters),
            calls=calls,
            model=state,
            result=encode_result(result),
        )
        self._writer.append(event, on_flushed=on_written, soon=True)

    def round_ended(self, call: int, number: int, calls: Mapping[int, int]) -> None:
        """Append how a bracket goes on after a round."""
        event = RoundEvent(
            generation=self.generation,
            time=time.time(),
            call=call,
            number=number,
            calls=dict(calls),
        )
        self._writer.append(event)

    def when_written(self, call: Callable[[], None]) -> None:
        """Call a function once all events so far are in the store."""
        self._writer.after_flush(call)

    # --- writing ------------------------------------------------------------------------

    def _digest_of(self, parameters: Mapping[str, Any]) -> str:
        """Return a candidate's digest, computed once for all its fits."""
        digest = self._digests.get(parameters)
        if digest is None:
            if len(self._digests) >= _DIGESTS_KEPT:
                self._digests.clear()
            digest = self._digests.put(parameters, value=digest_of(parameters))
        return digest

    def note(self, event: Event) -> None:
        """Append an event and write it at once."""
        self._writer.append(event, soon=True)

    def flush(self) -> None:
        """Write all events before returning."""
        self._writer.flush()

    def close(self) -> None:
        """Write the last events."""
        self._writer.close()

    def _add_results(self, call: StoredCall, ordinal: int, generation: int) -> None:
        digests = [digest_of(one) for one in call.candidates]
        for event in self.earlier.fits(ordinal, generation):
            candidate = event.candidate
            known = candidate < len(digests)
            parameters = call.candidates[candidate] if known else None
            expected = digests[candidate] if known else "none"
            if event.digest != expected and not (
                parameters is not None and is_of(event.digest, parameters)
            ):
                msg = (
                    f"run {self.folder.run_id}: the journal's result of call {ordinal}, "
                    f"candidate {candidate}, split {event.split} is for parameters with "
                    f"digest {event.digest}, but the candidate is {repr_of(parameters)} "
                    f"({expected}): the folder holds parts of different runs; "
                    "start the search again as a new run"
                )
                raise JournalMismatchError(msg)
            call.results[candidate, event.split] = decode_result(event.result)
        for drop in self._drops.get((ordinal, generation), []):
            candidate = drop.candidate
            if candidate < len(digests) and (
                drop.digest == digests[candidate]
                or is_of(drop.digest, call.candidates[candidate])
            ):
                call.dropped.add(candidate)


def _by_call(
    events: Iterable[Event], kind: type[OfCall]
) -> dict[tuple[int, int], list[OfCall]]:
    """Group the events of a kind by call and generation."""
    found: dict[tuple[int, int], list[OfCall]] = {}
    for event in events:
        if isinstance(event, kind):
            found.setdefault((event.call, event.generation), []).append(event)
    return found


def _call_name(ordinal: int, generation: int) -> str:
    return f"calls/{ordinal:05d}-{generation}.pkl"
