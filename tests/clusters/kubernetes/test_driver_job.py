"""The objects that a run's driver becomes on Kubernetes: what its pod is, and may do."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dask_hpsearch.clusters import tls
from dask_hpsearch.clusters.kubernetes import driver_job
from dask_hpsearch.clusters.kubernetes.deletion import ending_with_runs
from dask_hpsearch.clusters.kubernetes.driver_job import DriverJobSpec
from dask_hpsearch.clusters.kubernetes.manifests import ENDS_ANNOTATION, dask_cluster
from dask_hpsearch.config.cluster import IDLE_TIMEOUT_S
from dask_hpsearch.config.load import load_spec
from tests.clusters.kubernetes.test_manifests import SPOT

JOB = DriverJobSpec(
    run_id="20261125-010203-0123abcd",
    job="run-20261125-010203-0123abcd-456def",
    module="the.program",
    request={"run": "gs://bucket/runs/r"},
    signing_key="a PRIVATE key",
)
OWNER = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"uid": "0"}}


def pod_of(**changes: Any) -> dict[str, Any]:
    """Return the driver's pod for the spot example."""
    job = driver_job.driver_job("a", "here", load_spec(SPOT, **changes), JOB)
    pod: dict[str, Any] = job["spec"]["template"]["spec"]
    return pod


def companions(**changes: Any) -> dict[str, dict[str, Any]]:
    """Return what belongs to the Job, by kind."""
    made = driver_job.companions("a", load_spec(SPOT, **changes), JOB, OWNER)
    return {one["kind"]: one for one in made}


def test_the_driver_is_as_large_as_a_worker_on_a_node_that_stays() -> None:
    """It refits, and a node that is taken back would cost the refit."""
    spec = load_spec(SPOT)
    pod = pod_of()
    [container] = pod["containers"]

    amounts = {"cpu": spec.workers.cpu, "memory": spec.workers.memory}
    assert container["resources"] == {"limits": amounts, "requests": amounts}
    assert pod["nodeSelector"] == spec.nodes.on_demand.selector
    assert container["image"] == spec.image
    variables = {one["name"]: one["value"] for one in container["env"]}
    assert variables["OMP_NUM_THREADS"] == spec.workers.cpu


def test_a_spec_may_say_otherwise() -> None:
    """A driver of another size, with an account of the user's own, which may use a bucket."""
    driver = {"cpu": 2, "memory": "8Gi", "nodes": "spot", "service_account": "mine"}
    pod = pod_of(driver=driver)
    [container] = pod["containers"]

    assert container["resources"]["limits"] == {"cpu": "2", "memory": "8Gi"}
    assert pod["nodeSelector"] == load_spec(SPOT).nodes.spot.selector
    assert pod["serviceAccountName"] == "mine"
    assert "ServiceAccount" not in companions(driver=driver)
    [subject] = companions(driver=driver)["RoleBinding"]["subjects"]
    assert subject == {"kind": "ServiceAccount", "name": "mine"}


def test_the_drivers_pod_may_do_little_on_its_node() -> None:
    """As the others: no root, nothing to write; the token is for what its account may do."""
    pod = pod_of()
    [container] = pod["containers"]

    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert pod["serviceAccountName"] == JOB.job
    assert pod["restartPolicy"] == "Never"
    kinds = {kind for one in pod["volumes"] for kind in one if kind != "name"}
    assert kinds == {"emptyDir", "secret"}


def test_keys_are_in_secrets_alone() -> None:
    """The pod's own spec, which many may read, and the text of a DriverJobSpec have none."""
    job = driver_job.driver_job("a", "here", load_spec(SPOT), JOB)
    secret = companions().pop("Secret")
    others = [job, *(one for one in companions().values() if one["kind"] != "Secret")]

    assert "PRIVATE" not in json.dumps(others) + repr(JOB)
    assert secret["stringData"] == {"signing-key.pem": JOB.signing_key}
    mounted = [one["secret"] for one in pod_of()["volumes"] if "secret" in one]
    names = {item["key"] for one in mounted for item in one.get("items", [])}
    assert names == set(tls.role_files("client"))


def test_all_of_a_job_ends_with_it_and_nothing_starts_too_early() -> None:
    """What a pod needs is there before there is one."""
    job = driver_job.driver_job("a", "here", load_spec(SPOT), JOB)

    assert job["spec"]["parallelism"] == 0
    for one in companions().values():
        assert one["metadata"]["ownerReferences"][0]["kind"] == "Job"
        assert one["metadata"]["name"] == JOB.job


@pytest.mark.parametrize("name", [JOB.job, JOB.run_id])
def test_names_are_names_for_kubernetes(name: str) -> None:
    """A pod's name has six characters more."""
    assert len(name) <= 63 - 6
    assert name == name.lower()


def test_the_driver_may_do_what_it_does_and_no_more() -> None:
    """Only what has a name of its own can be deleted or changed; nothing can be made."""
    rules = companions()["Role"]["rules"]

    verbs = {verb for rule in rules for verb in rule["verbs"]}
    assert verbs == {"get", "list", "patch", "delete"}
    for rule in rules:
        assert "*" not in rule["resources"] + rule["verbs"] + rule["apiGroups"]
        assert "secrets" not in rule["resources"]
        if {"delete", "patch"} & set(rule["verbs"]):
            assert len(rule["resourceNames"]) == 1


def test_nobody_connects_to_a_driver() -> None:
    """It connects to others."""
    policy = companions()["NetworkPolicy"]["spec"]

    assert policy["policyTypes"] == ["Ingress"]
    assert "ingress" not in policy
    labels = driver_job.driver_job("a", "here", load_spec(SPOT), JOB)["spec"][
        "template"
    ]["metadata"]["labels"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()


@pytest.mark.parametrize(
    ("said", "change"), [(None, {"idleTimeout": IDLE_TIMEOUT_S}), (60, None)]
)
def test_a_cluster_that_ends_with_its_runs_does_not_wait_for_ever(
    said: int | None, change: dict[str, int] | None
) -> None:
    """A driver that Kubernetes has given up ends nothing; what the user said stays."""
    cluster = dask_cluster("a", "here", load_spec(SPOT, idle_timeout=said), 2)

    changes = ending_with_runs(cluster)

    assert changes["metadata"]["annotations"] == {ENDS_ANNOTATION: "true"}
    assert changes.get("spec") == change
