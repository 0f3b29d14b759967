"""Successive halving without a barrier between its rungs."""

from __future__ import annotations

__all__ = ["search", "strategy"]
