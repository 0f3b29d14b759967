"""References to data: where it is, and which version."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

Format = Literal["npy", "npz", "parquet", "csv", "joblib"]
# Schemes of URLs that workers on other machines can read.
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
        The storage's ID of the version; of a file, its modification time.
    checksum : str
        Of its content, as in `dask_hpsearch.localfs.checksums`.
    """

    url: str
    nbytes: int
    generation: str
    checksum: str

    @property
    def key(self) -> str:
        """The name of its file in a cache."""
        return _hash(asdict(self))

    def __str__(self) -> str:
        return (
            f"generation {self.generation or 'none'}, {self.nbytes} bytes, "
            f"{self.checksum or 'no checksum'}"
        )


@dataclass(frozen=True, slots=True)
class Source:
    """Data in pinned objects.

    Attributes
    ----------
    objects : tuple of ObjectPin
        Several are the parts of one table.
    format : str
    take : str or None
        Only this column of a table, or this array of an ``.npz`` file.
    leave : tuple of str
        Columns of the table that belong to other arguments.
    flat : bool
        Whether a table with a single column becomes a Series: for targets.
    """

    objects: tuple[ObjectPin, ...]
    format: Format
    take: str | None = None
    leave: tuple[str, ...] = ()
    flat: bool = False

    @property
    def key(self) -> str:
        """The name of its file in a cache."""
        return _hash(asdict(self))

    @property
    def nbytes(self) -> int:
        """Size of all objects."""
        return sum(one.nbytes for one in self.objects)

    @property
    def reachable(self) -> bool:
        """Whether workers on other machines can read it themselves."""
        return all(one.url.partition("://")[0] in REACHABLE for one in self.objects)

    @property
    def name(self) -> str:
        """Its name in errors."""
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
    """Uploaded data, for any number of searches; created by `upload`.

    Attributes
    ----------
    store : str
        URL of the store's folder of data.
    digest : str
        Hash of the content, and its name there.
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
        """Whether workers on other machines can read it themselves."""
        return self.store.partition("://")[0] in REACHABLE

    @property
    def name(self) -> str:
        """Its name in errors."""
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
