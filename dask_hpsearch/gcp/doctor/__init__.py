"""What a Google Cloud project lacks before clusters can be made in it."""

from __future__ import annotations

__all__ = ["doctor"]
