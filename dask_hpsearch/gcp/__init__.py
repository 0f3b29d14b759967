"""Google Cloud: GKE clusters, the images that run there, and what they cost."""

from __future__ import annotations

__all__ = ["auth", "clients", "doctor", "gke", "images", "pricing"]
