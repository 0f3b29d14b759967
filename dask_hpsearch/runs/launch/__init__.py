"""Starts drivers: as a process of this machine, or as a Job on Kubernetes."""

from __future__ import annotations

__all__ = ["job_watch", "kubernetes_job", "launch", "local_process", "module_archive"]
