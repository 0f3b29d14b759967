"""Data of searches: put where workers find it, or referred to where it lies."""

from __future__ import annotations

from dask_hpsearch.data.home import DataHome, KnownObjects
from dask_hpsearch.data.sending import DataSender

__all__ = ["DataHome", "DataSender", "KnownObjects"]
