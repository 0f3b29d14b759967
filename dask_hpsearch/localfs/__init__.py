"""Files of this machine: whole, locked, checked, mapped by many processes."""

from __future__ import annotations

__all__ = ["atomic", "bundles", "checksums", "node_cache"]
