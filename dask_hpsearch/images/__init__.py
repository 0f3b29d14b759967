"""Container images of scheduler, workers and operator: content and build."""

from __future__ import annotations

__all__ = ["context", "local"]
