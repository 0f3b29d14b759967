"""Where dask_hpsearch keeps its own files on this machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def data_folder() -> Path:
    """Return the folder that keeps this user's key and runs; it need not exist.

    ``$DASK_HPSEARCH_HOME`` if set; else the one in ``~/Library/Application Support`` on
    macOS, and in ``$XDG_DATA_HOME`` or ``~/.local/share`` elsewhere.
    """
    if home := os.environ.get("DASK_HPSEARCH_HOME"):
        return Path(home).expanduser().absolute()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "dask_hpsearch"
    shared = Path(os.environ.get("XDG_DATA_HOME", ""))
    # The XDG base directory specification has relative ones ignored.
    if not shared.is_absolute():
        shared = Path.home() / ".local" / "share"
    return shared / "dask_hpsearch"
