"""The operator's objects, as far as they can be seen without Kubernetes."""

from __future__ import annotations

from dask_hpsearch.clusters.kubernetes import operator


def test_the_definitions_are_those_of_the_installed_package() -> None:
    """Clusters, groups of workers, autoscalers and jobs."""
    names = {one["spec"]["names"]["kind"] for one in operator.crds()}

    assert names == {"DaskAutoscaler", "DaskCluster", "DaskJob", "DaskWorkerGroup"}


def test_the_operator_may_do_nothing_at_will() -> None:
    """No rule says all verbs, all resources, or secrets."""
    for rule in operator.RULES:
        assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"]
        assert "secrets" not in rule["resources"]


def test_the_operators_pod_may_do_little_on_its_node() -> None:
    """It has a token, which it needs, and no more than other pods otherwise."""
    [deployment] = [
        one for one in operator.manifests("x:1") if one["kind"] == "Deployment"
    ]
    pod = deployment["spec"]["template"]["spec"]
    [container] = pod["containers"]

    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["resources"]["limits"] == container["resources"]["requests"]
