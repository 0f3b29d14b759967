"""A note of the fit that used most memory when memory was short, read after an OOM kill.

If the kernel ends a whole container for lack of memory (cgroups of version 2, since
Kubernetes 1.28), no process is left that knows the fit, and Dask would run it again on one
worker after the other. A file in the pod's volume outlives the container.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

FILE = "short-of-memory.json"


@dataclass(frozen=True, slots=True)
class Load:
    """A fit, and the memory that its slot used.

    Attributes
    ----------
    topic : str
        Event topic of its engine.
    number : int
        Its number within the engine.
    nbytes : int
    """

    topic: str
    number: int
    nbytes: int


class OOMRecord:
    """Notes the fit that uses most memory while memory is short.

    Parameters
    ----------
    folder : Path
        Outlives the container.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._noted: Load | None = None

    def note(self, loads: Sequence[Load]) -> None:
        """Note the largest load; no loads mean that memory is no longer short."""
        most = max(loads, key=lambda load: load.nbytes, default=None)
        if most is None:
            if self._noted is not None:
                self.clear()
            return
        self._noted = most
        draft = self._path.with_suffix(".new")
        with contextlib.suppress(OSError):  # a full disk is no reason to end anything
            draft.write_text(json.dumps(asdict(most)), encoding="ascii")
            os.replace(draft, self._path)  # noqa: PTH105 (20 times a second)

    def clear(self) -> None:
        """Remove the note: memory is not short, or the worker ends normally."""
        self._noted = None
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)


def read_oom_record(folder: Path) -> Load | None:
    """Return and remove the note of a crashed worker; None if there is none."""
    path = folder / FILE
    try:
        found = Load(**json.loads(path.read_text("ascii")))
    except (OSError, ValueError, TypeError):
        return None
    path.unlink(missing_ok=True)
    return found
