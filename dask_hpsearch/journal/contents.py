"""What a journal's objects hold: events, and fits as columns."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dask_hpsearch.journal.events import FitEvent, event_from_json
from dask_hpsearch.journal.fit_columns import KIND, FitColumns, gathered

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from dask_hpsearch.journal.events import Event


@dataclass(frozen=True, slots=True)
class Content:
    """The content of a segment, or of a snapshot, which covers segments.

    Attributes
    ----------
    plain : list of Event
        Events that are stored one by one, in order.
    columns : list of FitColumns
        The other fits.
    covers, after : list of str
        Of a snapshot: the segments that it covers, and the snapshots before it.
    notes : list of Event
        All events but fits, and of the fits one with the newest time.
    """

    plain: list[Event] = field(default_factory=list)
    columns: list[FitColumns] = field(default_factory=list)
    covers: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)
    notes: list[Event] = field(default_factory=list)

    @classmethod
    def from_lines(cls, content: bytes) -> Content:
        """Read the lines of an object.

        Raises
        ------
        ValueError
            If one is not JSON, or not an event.
        """
        lines = [json.loads(line) for line in content.splitlines()]
        is_snapshot = bool(lines) and "covers" in lines[0]
        head = lines.pop(0) if is_snapshot else {}
        columns = [one for one in lines if one.get("e") == KIND]
        events = (event_from_json(one) for one in lines if one.get("e") != KIND)
        return cls.of(
            [event for event in events if event is not None],
            [FitColumns.from_json(one) for one in columns],
            covers=head.get("covers", []),
            after=head.get("after", []),
        )

    @classmethod
    def of(
        cls,
        plain: list[Event],
        columns: Sequence[FitColumns] = (),
        *,
        covers: Sequence[str] = (),
        after: Sequence[str] = (),
    ) -> Content:
        """Make a content of events and columns."""
        fits = [one for one in plain if isinstance(one, FitEvent)]
        fits += [one.newest() for one in columns]
        notes: list[Event] = [one for one in plain if not isinstance(one, FitEvent)]
        if fits:
            notes.append(max(fits, key=lambda fit: fit.time))
        return cls(plain, list(columns), list(covers), list(after), notes)


@dataclass(frozen=True, slots=True)
class JournalContent:
    """A whole journal.

    Attributes
    ----------
    objects : mapping of str to Content
        By the name of the segment or snapshot; an event may be in more than one.
    """

    objects: Mapping[str, Content]

    def events(self) -> list[Event]:
        """Return all events."""
        return [
            event
            for content in self.objects.values()
            for events in (content.plain, *(one.events() for one in content.columns))
            for event in events
        ]

    def notes(self) -> list[Event]:
        """Return all events but most fits; one with the newest time is among them.

        That is what the state of a run follows from.
        """
        return [event for content in self.objects.values() for event in content.notes]

    def fits(self, call: int, generation: int) -> Iterator[FitEvent]:
        """Iterate over the fits of a call in one generation of the run."""
        for event in self._plain():
            if isinstance(event, FitEvent) and event.is_of(call, generation):
                yield event
        for content in self.objects.values():
            for columns in content.columns:
                if columns.is_of(call, generation):
                    yield from columns.events()

    def _plain(self) -> Iterator[Event]:
        for content in self.objects.values():
            yield from content.plain


def split_events(events: list[Event]) -> tuple[list[Event], list[bytes]]:
    """Take out the fits that are stored as columns.

    Returns
    -------
    list of Event
        The others.
    list of bytes
        The stored columns.
    """
    columns, fits = gathered(one for one in events if isinstance(one, FitEvent))
    if not columns:
        return events, []
    others: list[Event] = [one for one in events if not isinstance(one, FitEvent)]
    return others + fits, [to_line(one.to_json()) for one in columns]


def to_lines(events: Iterable[Event]) -> list[bytes]:
    """Encode events one by one."""
    return [to_line(event.to_json()) for event in events]


def to_line(stored: Mapping[str, Any]) -> bytes:
    """Encode a stored event, or another object of a journal."""
    return json.dumps(stored, separators=(",", ":")).encode()
