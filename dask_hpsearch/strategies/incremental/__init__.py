"""dask-ml's searches that train many models by ``partial_fit`` and drop the worse ones."""

from __future__ import annotations

__all__ = ["kinds", "strategy"]
