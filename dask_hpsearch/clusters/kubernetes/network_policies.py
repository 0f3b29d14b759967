"""Who may connect to a cluster's pods: NetworkPolicies, as pure values.

They are enforced if the Kubernetes cluster's network plug-in does that.
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
    """Admit the cluster's own pods to Dask's port, and the operator to HTTP alone.

    Parameters
    ----------
    selector : dict
        Labels of the scheduler's pod.
    cluster, operator : dict
        Labels of the cluster's pods, and of the operator's pod and namespace.
    comm_port, http_port : int
    """
    asks = {
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
            {"from": [asks], "ports": [{"protocol": "TCP", "port": http_port}]},
        ],
    }


def worker_policy(selector: dict[str, str], *, cluster: dict[str, str]) -> Manifest:
    """Admit the cluster's own pods to its workers."""
    return {
        "podSelector": {"matchLabels": selector},
        "policyTypes": ["Ingress"],
        "ingress": [{"from": [{"podSelector": {"matchLabels": cluster}}]}],
    }


def driver_policy(selector: dict[str, str]) -> Manifest:
    """Admit nobody to a driver: it connects to others."""
    return {"podSelector": {"matchLabels": selector}, "policyTypes": ["Ingress"]}
