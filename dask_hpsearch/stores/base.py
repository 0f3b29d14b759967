"""What a store is: one folder of named objects, bytes in and bytes out."""

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
    """One folder of immutable objects, shared by everyone who opens its URL.

    An object's name has one or more parts, joined by "/", none of them hidden (beginning
    with a dot). A name must not be the folder of another one. Objects never change:
    there is no overwriting, and nobody ever sees a part of one.

    All methods raise `StoreNameError` for a name that is none, `StorePermissionError`
    if they may not, and `StoreError` for what else the storage refuses.
    """

    @property
    def url(self) -> str:
        """The URL under which `open_store` opens this store again."""

    def read(self, name: str) -> bytes:
        """Read an object.

        Raises
        ------
        ObjectNotFoundError
            If there is none of this name.
        """

    def create(self, name: str, content: bytes) -> bool:
        """Create an object, whole or not at all, unless there is one of this name.

        When it returns, the object outlasts the death of any process, and, where the
        storage can promise it, a power cut.

        Returns
        -------
        bool
            Whether the object is this call's own; False if there was one before. Of
            callers at the same time exactly one gets True.

        Raises
        ------
        StoreFullError
            If there is no space for it.
        """

    def fetch(self, name: str, path: Path) -> None:
        """Read an object into a local file, whole or not at all, without holding it.

        What the storage has noted of the content (size, checksum) is checked.

        Parameters
        ----------
        name : str
        path : Path
            In a folder that exists; a file there is replaced.

        Raises
        ------
        ObjectNotFoundError
            If there is none of this name.
        OSError
            If the local file cannot be written.
        """

    def send(self, name: str, path: Path) -> bool:
        """Create an object from a local file, as `create` does, without holding it.

        Parameters
        ----------
        name : str
        path : Path
            It must not change meanwhile.

        Returns
        -------
        bool
            Whether the object is this call's own; False if there was one before.

        Raises
        ------
        StoreFullError
            If there is no space for it.
        OSError
            If the local file cannot be read.
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
        """Mark an object as used now, for those who remove what is old.

        Raises
        ------
        ObjectNotFoundError
            If there is none of this name.
        """

    def delete(self, name: str) -> None:
        """Delete an object; nothing is done if there is none."""

    def child(self, name: str) -> Store:
        """Return the store of the objects below a name."""

    def local_path(self) -> Path | None:
        """Return the folder that holds the store, if it is one of this machine."""


def check_name(name: str) -> str:
    """Return a name that is one.

    Raises
    ------
    StoreNameError
        If it is empty, would lead out of the store, or could not be stored everywhere.
    """
    if not all(is_part(part) for part in name.split("/")):
        msg = (
            f"{name!r} cannot name an object in a store: use printable parts joined by "
            "'/', none of them empty, beginning with a dot or holding a backslash"
        )
        raise StoreNameError(msg)
    return name


def check_prefix(prefix: str) -> str:
    """Return a prefix that names could have.

    Raises
    ------
    StoreNameError
        If none could.
    """
    if prefix:
        check_name(prefix.removesuffix("/"))
    return prefix


def is_part(text: str) -> bool:
    """Whether a text can stand between the slashes of a name."""
    return (
        bool(text)
        and text.isprintable()
        and not text.startswith(".")
        and "\\" not in text
    )
