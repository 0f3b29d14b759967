"""Signatures of pickles, and detection of secrets."""

from __future__ import annotations

__all__ = ["secret_scan", "signing"]
