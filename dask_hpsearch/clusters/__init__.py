"""Dask clusters that suit searches: each is one of Dask's own cluster objects."""

from __future__ import annotations

__all__ = ["kubernetes", "local", "tls"]
