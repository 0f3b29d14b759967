"""Container images: built by Cloud Build, kept in Artifact Registry."""

from __future__ import annotations

__all__ = ["build_account", "images"]
