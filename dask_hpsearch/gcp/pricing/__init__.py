"""List prices of Google Cloud, and estimates of costs made of them."""

from __future__ import annotations

__all__ = ["costs", "prices"]
