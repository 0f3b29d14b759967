"""The journal of a run: its folder, its events, and how they are stored."""

from __future__ import annotations

__all__ = [
    "callback_events",
    "contents",
    "events",
    "exploration",
    "fit_columns",
    "folder",
    "main_names",
    "next_steps",
    "run_journal",
    "run_state",
    "segments",
    "serialization",
    "training_events",
    "trainings",
]
