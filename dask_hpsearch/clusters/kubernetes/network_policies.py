"""Builds the NetworkPolicies of a Dask cluster: pure functions.

They take effect if the network plug-in of Kubernetes enforces them.
"""

from __future__ import annotations

from typing import Any

Manifest = dict[str, Any]


def scheduler_policy(
    selector: dict[str, str],
    *,
    cluster: dict[str, str],
    operator: dict[str, str],
    comm_port: int,
    http_port: int,
) -> Manifest:
    """Allow the cluster's pods to connect to Dask's port, and the operator to HTTP only.

    Parameters
    ----------
    selector : dict
        Labels of the scheduler's pod.
    cluster, operator : dict
        Labels of the cluster's pods, and of the operator's pod and namespace.
    comm_port, http_port : int
    """
    operator_pods = {
        "namespaceSelector": {"matchLabels": operator},
        "podSelector": {"matchLabels": operator},
    }
    return {
        "podSelector": {"matchLabels": selector},
        "policyTypes": ["Ingress"],
        "ingress": [
            {
                "from": [{"podSelector": {"matchLabels": cluster}}],
                "ports": [{"protocol": "TCP", "port": comm_port}],
            },
            {
                "from": [operator_pods],
                "ports": [{"protocol": "TCP", "port": http_port}],
            },
        ],
    }


def worker_policy(selector: dict[str, str], *, cluster: dict[str, str]) -> Manifest:
    """Allow the cluster's pods to connect to its workers."""
    return {
        "podSelector": {"matchLabels": selector},
        "policyTypes": ["Ingress"],
        "ingress": [{"from": [{"podSelector": {"matchLabels": cluster}}]}],
    }


def driver_policy(selector: dict[str, str]) -> Manifest:
    """Allow no connections to a driver."""
    return {"podSelector": {"matchLabels": selector}, "policyTypes": ["Ingress"]}
