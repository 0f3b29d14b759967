"""The live view of a run: its state as plain values, and how notebooks and browsers show it."""

from __future__ import annotations

__all__ = ["candidates", "html", "slices", "state", "widget"]
