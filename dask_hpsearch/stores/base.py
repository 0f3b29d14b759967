"""The protocol of stores: folders of named, immutable objects."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeAlias

from dask_hpsearch.exceptions import StoreNameError

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object as a listing shows it.

    Attributes
    ----------
    name : str
        Relative to the store, as `Store.read` takes it.
    nbytes : int
        Its size in bytes.
    modified : float
        When it was created, or touched, in seconds since the epoch.
    """

    name: str
    nbytes: int
    modified: float = field(default=0.0, compare=False)


Listing: TypeAlias = list[StoredObject]


class Store(Protocol):
    """A folder of immutable objects, shared by all processes that open its URL.

    An object's name has one or more parts, joined by "/", none of them hidden (beginning
    with a dot). A name must not be the folder of another one. Objects never change,
    unless `replace` is called, and a reader never sees a part of one.

    All methods raise `StoreNameError` for an invalid name, `StorePermissionError` without
    permission, and `StoreError` for other errors of the storage.
    """

    @property
    def url(self) -> str:
        """The URL under which `open_store` opens this store again."""

    def read(self, name: str) -> bytes:
        """Read an object.

        Raises
        ------
        ObjectNotFoundError
            If there is no object of this name.
        """

    def create(self, name: str, content: bytes) -> bool:
        """Create an object atomically, unless there is one of this name.

        When it returns, the object survives the end of any process and, if the storage
        guarantees it, a power failure.

        Returns
        -------
        bool
            Whether this call has created it. Of concurrent calls exactly one returns True.

        Raises
        ------
        StoreFullError
            If there is no space for it.
        """

    def fetch(self, name: str, path: Path) -> None:
        """Copy an object into a local file atomically, in chunks.

        Size and checksum are compared with the storage's.

        Parameters
        ----------
        name : str
        path : Path
            In an existing folder; an existing file is replaced.

        Raises
        ------
        ObjectNotFoundError
            If there is no object of this name.
        OSError
            If the local file cannot be written.
        """

    def send(self, name: str, path: Path) -> bool:
        """Create an object from a local file, as `create` does, in chunks.

        Parameters
        ----------
        name : str
        path : Path
            It must not change meanwhile.

        Returns
        -------
        bool
            Whether this call has created it.

        Raises
        ------
        StoreFullError
            If there is no space for it.
        OSError
            If the local file cannot be read.
        """

    def replace(self, name: str, content: bytes) -> None:
        """Create an object atomically, in the place of one of this name if there is one.

        This is for files that users export; objects of a run never change.

        Raises
        ------
        StoreFullError
            If there is no space for it.
        """

    def list(self, prefix: str = "") -> Listing:
        """List the objects whose names begin with a text, sorted by name.

        Parameters
        ----------
        prefix : str
            ``"a/b"`` finds ``"a/b"``, ``"a/bc"`` and ``"a/b/c"``; ``"a/"`` all below
            ``"a"``; the default everything.
        """

    def touch(self, name: str) -> None:
        """Mark an object as used now, for the removal of old ones.

        Raises
        ------
        ObjectNotFoundError
            If there is no object of this name.
        """

    def delete(self, name: str) -> None:
        """Delete an object, if there is one."""

    def child(self, name: str) -> Store:
        """Return the store of the objects below a name."""

    def local_path(self) -> Path | None:
        """Return the folder of the store, if it is on this machine."""


def check_name(name: str) -> str:
    """Return a name, if it is valid.

    Raises
    ------
    StoreNameError
        If it is empty, leads out of the store, or is not valid in all stores.
    """
    if not all(is_part(part) for part in name.split("/")):
        msg = (
            f"the name of an object must be printable parts joined by '/', none of them empty, "
            f"starting with a dot or containing a backslash, got {name!r}"
        )
        raise StoreNameError(msg)
    return name


def check_prefix(prefix: str) -> str:
    """Return a prefix, if a valid name may have it.

    Raises
    ------
    StoreNameError
        If it is invalid.
    """
    if prefix:
        check_name(prefix.removesuffix("/"))
    return prefix


def is_part(text: str) -> bool:
    """Whether a text is a valid part of a name."""
    return (
        bool(text)
        and text.isprintable()
        and not text.startswith(".")
        and "\\" not in text
    )
