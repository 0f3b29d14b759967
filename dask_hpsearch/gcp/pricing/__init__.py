"""List prices of Google Cloud, and cost estimates from them."""

from __future__ import annotations

__all__ = ["costs", "prices"]
