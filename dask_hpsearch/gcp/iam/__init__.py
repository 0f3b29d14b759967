"""Allow policies of IAM: which bindings are needed, checked, and made."""

from __future__ import annotations

__all__ = ["bindings", "conditions", "policies"]
