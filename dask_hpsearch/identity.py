"""Values remembered by the identity of the objects that they belong to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

V = TypeVar("V")


class IdentityMemo(Generic[V]):
    """Maps objects, which need not be hashable, to values.

    An object, or several that together make the key, is kept as long as its value: Python
    gives the ``id`` of an object that is gone to another.
    """

    def __init__(self) -> None:
        self._entries: dict[tuple[int, ...], tuple[tuple[Any, ...], V]] = {}

    def get(self, *objects: Any, default: V | None = None) -> V | None:
        """Return the value of these very objects, or the default."""
        entry = self._entries.get(tuple(map(id, objects)))
        return default if entry is None else entry[1]

    def put(self, *objects: Any, value: V) -> V:
        """Remember a value, and return it."""
        self._entries[tuple(map(id, objects))] = objects, value
        return value

    def values(self) -> Iterator[V]:
        """Iterate over all values."""
        return (value for _, value in self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)

    def clear(self) -> None:
        """Forget all, and let go of the objects."""
        self._entries.clear()
