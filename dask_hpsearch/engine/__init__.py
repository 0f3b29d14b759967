"""The engine: tasks in, outcomes out as they come, on whatever slots there are."""

from __future__ import annotations

__all__ = [
    "client",
    "cluster_features",
    "connect",
    "demand",
    "engine",
    "module_sync",
    "policy",
    "racing",
    "tasks",
    "waiting_tasks",
]
