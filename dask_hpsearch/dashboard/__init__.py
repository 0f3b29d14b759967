"""The dashboard of runs: a server on this machine alone, for its user's browser."""

from __future__ import annotations

__all__ = ["server"]
