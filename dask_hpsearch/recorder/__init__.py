"""Notes what a search evaluates, and replays what its run has."""

from __future__ import annotations

__all__ = ["call", "evaluation_hook", "recorder"]
