"""Champions: the best model so far under a URL, replaced only by a better one."""

from __future__ import annotations

__all__ = ["champions", "promotion"]
