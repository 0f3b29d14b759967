"""From a spec to a Dask cluster on GKE, and back to nothing."""

from __future__ import annotations

__all__ = ["cluster", "context", "deprovision", "inspect", "provision", "scale"]
