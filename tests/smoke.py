"""The script of docs/proving-on-gke.md, as a module."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from typing import TYPE_CHECKING, Any

from tests.processes import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

SCRIPT = ROOT / "examples" / "gke_smoke_test.py"


@contextlib.contextmanager
def load_script() -> Iterator[Any]:
    """Import it while the context lasts."""
    found = importlib.util.spec_from_file_location("gke_smoke_test", SCRIPT)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules["gke_smoke_test"] = module
    try:
        found.loader.exec_module(module)
        yield module
    finally:
        del sys.modules["gke_smoke_test"]
