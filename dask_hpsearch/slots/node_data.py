"""The bundles that a worker has: in a folder shared with the client, or its own."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from dask_hpsearch.errors import DataUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from dask_hpsearch.trials import DataRef

_ASK_AGAIN_S = 5.0
_GIVE_UP_S = 120.0


class NodeData:
    """Finds bundles on this machine; has missing ones sent, once for all slots.

    Parameters
    ----------
    parent : Path
        The worker's local folder; bundles that are sent are kept in one below it.
    """

    def __init__(self, parent: Path) -> None:
        self._parent = parent
        self._folder: Path | None = None
        self._arrived: dict[str, str] = {}
        self._asked: dict[str, str] = {}
        self._users: dict[str, set[str]] = {}
        self._heard_at = 0.0
        self._changed = threading.Condition()

    def path(
        self,
        ref: DataRef,
        ask: Callable[[DataRef], None],
        *,
        user: str,
        given_up: Callable[[], bool],
    ) -> str:
        """Return the file of a bundle, waiting for it to be sent if need be.

        Parameters
        ----------
        ref : DataRef
        ask : callable
            Asks the client to send it.
        user : str
            Names the search that needs it, until that search forgets it.
        given_up : callable
            Whether it is not needed any more: a client whose search has ended sends
            nothing. Looked at every few seconds, and after `look_again`.

        Raises
        ------
        DataUnavailableError
            If nothing comes for two minutes, or it is given up.
        """
        if _is_there(ref):
            return ref.hint
        begun = time.monotonic()
        with self._changed:
            self._users.setdefault(ref.digest, set()).add(user)
            while ref.digest not in self._arrived:
                if given_up():
                    self._unask(ref.digest, user)
                    msg = f"nobody needs {ref.digest} any more"
                    raise DataUnavailableError(msg)
                if time.monotonic() > max(begun, self._heard_at) + _GIVE_UP_S:
                    msg = (
                        f"the client did not send {ref.nbytes} bytes of data "
                        f"({ref.digest}) within {_GIVE_UP_S:.0f} s: is it still running?"
                    )
                    raise DataUnavailableError(msg)
                if ref.digest not in self._asked:
                    self._asked[ref.digest] = user
                    ask(ref)
                if not self._changed.wait(_ASK_AGAIN_S):
                    self._asked.pop(ref.digest, None)
            return self._arrived[ref.digest]

    def look_again(self) -> None:
        """Let those who wait see whether to give up."""
        with self._changed:
            self._changed.notify_all()

    def receive(
        self, digest: str, offset: int, chunk: bytes, nbytes: int, user: str
    ) -> None:
        """Write a part of a bundle; the last one makes it available.

        Two searches may send the same one: each writes a file of its own.
        """
        self._heard_at = time.monotonic()
        path = self._own_folder() / digest
        partial = path.with_name(f"{digest}.{user}.partial")
        with partial.open("r+b" if offset else "wb") as file:
            file.seek(offset)
            file.write(chunk)
        if offset + len(chunk) == nbytes:
            partial.replace(path)
            with self._changed:
                self._arrived[digest] = str(path)
                self._asked.pop(digest, None)
                self._changed.notify_all()

    def forget(self, user: str) -> None:
        """Remove bundles that only this search has used.

        Slots that have mapped one keep it until they drop it.
        """
        with self._changed:
            for digest in list(self._asked):
                self._unask(digest, user)
            for digest in [one for one, users in self._users.items() if user in users]:
                self._users[digest].remove(user)
                if not self._users[digest]:
                    del self._users[digest]
                    path = self._arrived.pop(digest, None)
                    if path is not None:
                        Path(path).unlink(missing_ok=True)

    def close(self) -> None:
        """Remove all that was sent."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _unask(self, digest: str, user: str) -> None:
        """Let another search ask, now that this one will not be answered."""
        if self._asked.get(digest) == user:
            del self._asked[digest]
            self._changed.notify_all()

    def _own_folder(self) -> Path:
        if self._folder is None:
            self._parent.mkdir(parents=True, exist_ok=True)
            self._folder = Path(tempfile.mkdtemp(dir=self._parent, prefix="bundles-"))
        return self._folder


def _is_there(ref: DataRef) -> bool:
    with contextlib.suppress(OSError):
        return Path(ref.hint).stat().st_size == ref.nbytes
    return False
