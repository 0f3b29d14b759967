"""The process that drives a submitted search."""

from __future__ import annotations

__all__ = ["drive", "request"]
