"""Champions in a folder, a bucket or memory, as immutable objects.

champions/00000003.json             pointer: version 3 is the champion after version 2
versions/00000003-5c0ffee5/…        its objects, written before the pointer

The champion is the one with the highest number. A store creates an object only if there is none
of its name (in a bucket by the condition that its generation is 0): of several promoters that
want to follow version 2, exactly one creates ``champions/00000003.json``.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import unquote

from dask_hpsearch.exceptions import ChampionNotFoundError, ObjectNotFoundError
from dask_hpsearch.models.signed_version import read_pointer, signed_objects
from dask_hpsearch.stores import open_store

if TYPE_CHECKING:
    import os

    from dask_hpsearch.models.champions import NewVersion
    from dask_hpsearch.models.signed_version import SignedPointer, Trust
    from dask_hpsearch.stores import Store

_POINTERS = "champions/"
_POINTER = re.compile(r"champions/(\d{8})\.json")


@dataclass(frozen=True, slots=True)
class ChampionFolder:
    """The champions in a store.

    Attributes
    ----------
    store : Store
    """

    store: Store

    @classmethod
    def open(cls, url: str | os.PathLike[str]) -> ChampionFolder:
        """Open a folder, which need not exist yet."""
        return cls(open_store(url))

    @property
    def url(self) -> str:
        """The folder's URL."""
        return self.store.url

    @property
    def name(self) -> str:
        """The last part of the URL."""
        return unquote(self.store.url.rstrip("/").rpartition("/")[2])

    def current(self) -> int | None:
        """Return the highest version."""
        return max(self.versions(), default=None)

    def versions(self) -> list[int]:
        """Return the versions to which there is a pointer."""
        found = (_POINTER.fullmatch(one.name) for one in self.store.list(_POINTERS))
        return [int(one[1]) for one in found if one]

    def pointer(self, version: int, trust: Trust) -> SignedPointer:
        """Read and verify a pointer."""
        try:
            content = self.store.read(_pointer_name(version))
        except ObjectNotFoundError as error:
            msg = (
                f"there is no version {version} at {self.url}: the versions are "
                f"{', '.join(map(str, self.versions())) or 'none'}"
            )
            raise ChampionNotFoundError(msg) from error
        pointer = read_pointer(content, name=self.name, url=self.url, trust=trust)
        # A pointer that was renamed would bring an earlier champion back.
        pointer.check_folder(_folder_prefix(version))
        return pointer

    def read(self, pointer: SignedPointer, name: str) -> bytes:
        """Read an object of a version."""
        return self.store.read(f"{pointer.pointer.folder}/{name}")

    def replace(self, champion: int | None, new: NewVersion) -> int | None:
        """Write a version, then the pointer to it."""
        version = 1 if champion is None else champion + 1
        folder = f"{_folder_prefix(version)}{secrets.token_hex(4)}"
        card = replace(new.card, version=version)
        objects, pointer = signed_objects(new.model, card, folder=folder)
        for name, content in objects.items():
            self.store.create(f"{folder}/{name}", content)
        # If this raises, the pointer may exist all the same: the version has to stay.
        if self.store.create(_pointer_name(version), pointer):
            return version
        for name in objects:
            self.store.delete(f"{folder}/{name}")
        return None


def _pointer_name(version: int) -> str:
    return f"{_POINTERS}{version:08}.json"


def _folder_prefix(version: int) -> str:
    return f"versions/{version:08}-"
