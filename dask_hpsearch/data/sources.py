"""Values that say where data lies, and which version of it is meant."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

Format = Literal["npy", "npz", "parquet", "csv", "joblib"]
# Kinds of URL that workers on other machines can read as the client does.
REACHABLE = ("gs",)
_DIGEST_LENGTH = 32


@dataclass(frozen=True, slots=True)
class ObjectPin:
    """One version of one object.

    Attributes
    ----------
    url : str
    nbytes : int
        Its size.
    generation : str
        The storage's name for the version; of a file, when it was last changed.
    checksum : str
        Of its content, as `dask_hpsearch.localfs.checksums` writes it.
    """

    url: str
    nbytes: int
    generation: str
    checksum: str

    @property
    def key(self) -> str:
        """Name of its file in a cache."""
        return _hash(asdict(self))

    def __str__(self) -> str:
        return (
            f"generation {self.generation or 'none'}, {self.nbytes} bytes, "
            f"{self.checksum or 'no checksum'}"
        )


@dataclass(frozen=True, slots=True)
class Source:
    """Data in objects by URL, pinned.

    Attributes
    ----------
    objects : tuple of ObjectPin
        Several are the parts of one table.
    format : str
    take : str or None
        Only this column of a table, or this array of an ``.npz`` file.
    leave : tuple of str
        Columns of the table that are something else than these data.
    flat : bool
        Make a single column of a table without ``take`` a plain column: for targets.
    """

    objects: tuple[ObjectPin, ...]
    format: Format
    take: str | None = None
    leave: tuple[str, ...] = ()
    flat: bool = False

    @property
    def key(self) -> str:
        """Name of its file in a cache."""
        return _hash(asdict(self))

    @property
    def nbytes(self) -> int:
        """Size of all objects."""
        return sum(one.nbytes for one in self.objects)

    @property
    def reachable(self) -> bool:
        """Whether workers on other machines can read it by themselves."""
        return all(one.url.partition("://")[0] in REACHABLE for one in self.objects)

    @property
    def name(self) -> str:
        """What it is called in errors."""
        first = self.objects[0].url
        more = f" and {len(self.objects) - 1} more" if len(self.objects) > 1 else ""
        part = f", column {self.take!r}" if self.take else ""
        return f"{first}{more}{part}"

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values; `from_json` is the inverse."""
        return asdict(self)

    @staticmethod
    def from_json(values: dict[str, Any]) -> Source:
        """Read what `to_json` wrote."""
        pins = tuple(ObjectPin(**one) for one in values["objects"])
        return Source(**values | {"objects": pins, "leave": tuple(values["leave"])})


@dataclass(frozen=True, slots=True)
class DataReference:
    """Data that was uploaded, for any number of searches; made by `upload`.

    Attributes
    ----------
    store : str
        URL of the store's folder of data.
    digest : str
        Hash of the content, which is its name there.
    nbytes : int
    n_samples : int or None
        Its length, if it has one.
    """

    store: str
    digest: str
    nbytes: int
    n_samples: int | None = None

    @property
    def reachable(self) -> bool:
        """Whether workers on other machines can read it by themselves."""
        return self.store.partition("://")[0] in REACHABLE

    @property
    def name(self) -> str:
        """What it is called in errors."""
        return f"{self.store}/{self.digest}"

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values; `from_json` is the inverse."""
        return asdict(self)

    @staticmethod
    def from_json(values: dict[str, Any]) -> DataReference:
        """Read what `to_json` wrote."""
        return DataReference(**values)


Reference = Source | DataReference


def _hash(values: dict[str, Any]) -> str:
    text = json.dumps(values, sort_keys=True).encode()
    return hashlib.sha256(text, usedforsecurity=False).hexdigest()[:_DIGEST_LENGTH]
