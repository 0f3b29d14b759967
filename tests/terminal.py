"""The far end of a pseudo-terminal."""

from __future__ import annotations

import os
import threading


class Terminal:
    """The far end of a pseudo-terminal, read as it is written to."""

    def __init__(self) -> None:
        self._master, slave = os.openpty()
        self.stream = os.fdopen(slave, "w")
        self._received = b""
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        try:
            while chunk := os.read(self._master, 4096):
                with self._changed:
                    self._received += chunk
                    self._changed.notify_all()
        except OSError:  # Linux's way to say that the other end is closed
            pass

    def wait_for(self, words: str) -> None:
        """Wait until something was written."""
        with self._changed:
            assert self._changed.wait_for(lambda: words in self.text, timeout=30)

    @property
    def text(self) -> str:
        """All that was written."""
        return self._received.decode(errors="replace")  # it may be cut anywhere

    def close(self) -> str:
        """Close both ends; return all that was written."""
        self.stream.close()
        self._reader.join()
        os.close(self._master)
        return self.text
