"""The journal of a run: what was asked, what has finished; never what will be."""

from __future__ import annotations

__all__ = [
    "events",
    "folder",
    "main_names",
    "next_steps",
    "run_journal",
    "run_state",
    "segments",
    "serialization",
]
