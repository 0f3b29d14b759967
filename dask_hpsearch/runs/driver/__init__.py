"""Drivers: the process that drives a run, on this machine or in a pod."""

from __future__ import annotations

__all__ = ["drive", "request"]
