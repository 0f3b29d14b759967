"""Records a search's candidates, splits and results, and replays those of its run."""

from __future__ import annotations

__all__ = ["call", "dropped", "evaluation_hook", "listener", "recorder", "standings"]
