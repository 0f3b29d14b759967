"""Signatures of pickles, and secrets that may not leave this machine."""

from __future__ import annotations

__all__ = ["secret_scan", "signing"]
