"""Checks that a Google Cloud project has what a spec needs."""

from __future__ import annotations

__all__ = ["doctor"]
