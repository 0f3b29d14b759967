"""One search, from its start to its end."""

from __future__ import annotations

__all__ = ["fit"]
