"""Dask clusters on Kubernetes, made by the Dask operator."""

from __future__ import annotations

__all__ = [
    "api",
    "cluster",
    "diagnosis",
    "driver_job",
    "driver_pod",
    "job_control",
    "lifecycle",
    "manifests",
    "operator",
    "overview",
    "pod_logs",
]
