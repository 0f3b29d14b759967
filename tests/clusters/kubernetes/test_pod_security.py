"""All pods that we make satisfy Kubernetes' Pod Security Standard "restricted"."""

from __future__ import annotations

from typing import Any

import pytest

from dask_hpsearch.clusters.kubernetes import operator
from dask_hpsearch.clusters.kubernetes.manifests import POD_SECURITY
from dask_hpsearch.gcp.gke import reaper_pod
from tests.clusters.kubernetes.test_driver_job import pod_of
from tests.clusters.kubernetes.test_manifests import pods_of
from tests.gcp.specs import spec

# What the standard allows: https://kubernetes.io/docs/concepts/security/pod-security-standards/
VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
OPERATORS = {one["kind"]: one for one in operator.manifests("x:1")}
REAPERS = {one["kind"]: one for one in reaper_pod.manifests(spec(), "x:1")}
PODS = {
    **pods_of(),
    "driver": pod_of(),
    "operator": OPERATORS["Deployment"]["spec"]["template"]["spec"],
    "reaper": REAPERS["Deployment"]["spec"]["template"]["spec"],
}


@pytest.mark.parametrize("name", PODS)
def test_a_pod_is_restricted(name: str) -> None:
    """Field by field, as the standard lists them."""
    pod: dict[str, Any] = PODS[name]
    own = pod["securityContext"]

    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    assert own["runAsNonRoot"] is True
    assert own["runAsUser"] != 0
    assert own["seccompProfile"]["type"] in ("RuntimeDefault", "Localhost")
    for volume in pod.get("volumes", []):
        assert set(volume) - {"name"} <= VOLUMES
    for container in [*pod["containers"], *pod.get("initContainers", [])]:
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert security.get("privileged") is not True
        assert all("hostPort" not in port for port in container.get("ports", []))


@pytest.mark.parametrize("made", [OPERATORS, REAPERS])
def test_a_namespace_of_ours_refuses_other_pods(made: dict[str, Any]) -> None:
    """Kubernetes enforces it by the namespace's labels."""
    assert made["Namespace"]["metadata"]["labels"].items() >= POD_SECURITY.items()
