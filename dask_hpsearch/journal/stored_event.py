"""What the events of a journal have in common: their fields, and the keys of these."""

from __future__ import annotations

import functools
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

Stored = dict[str, Any]
# Long journals have many of these; other fields are stored by their names.
_SHORT_KEYS = {
    "generation": "g",
    "time": "t",
    "call": "c",
    "candidate": "i",
    "split": "s",
    "digest": "d",
    "result": "r",
    "encoded": "p",
    "n_splits": "k",
    "n_candidates": "n",
}


class StoredEvent:
    """An event whose fields are stored as they are; an optional one that is None is not.

    Attributes
    ----------
    KIND : str
        The kind of event, as it is stored.
    """

    __slots__ = ()
    KIND: ClassVar[str]

    def to_json(self) -> Stored:
        """Return the event as it is stored."""
        stored: Stored = {"e": self.KIND}
        own_class: Any = type(self)
        for name, key, is_optional in _keys_of(own_class):
            value = getattr(self, name)
            if value is not None or not is_optional:
                stored[key] = value
        return stored

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """Read a stored event."""
        own_class: Any = cls
        return cls(
            **{
                name: stored[key]
                for name, key, is_optional in _keys_of(own_class)
                if key in stored or not is_optional
            }
        )


@functools.cache
def _keys_of(kind: Any) -> list[tuple[str, str, bool]]:
    """Return the name and the key of each field, and whether it has a default."""
    return [
        (
            one.name,
            _SHORT_KEYS.get(one.name, one.name),
            one.default is not MISSING or one.default_factory is not MISSING,
        )
        for one in fields(kind)
    ]


def given(**values: Any) -> Stored:
    """Return the keys that have a value: the others are not stored."""
    return {key: value for key, value in values.items() if value is not None}
