"""Images for scheduler, workers and operator: what goes in, and building them."""

from __future__ import annotations

__all__ = ["context", "local"]
