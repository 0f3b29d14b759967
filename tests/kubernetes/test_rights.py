"""What accounts may do, and what becomes of those who may not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB

from dask_hpsearch import DaskSearchCV, kube_cluster
from dask_hpsearch.clusters.kubernetes import operator
from dask_hpsearch.exceptions import KubernetesRightsError
from tests.kubernetes.accounts import (
    AUTHORIZATION,
    RBAC,
    account,
    granted,
    kubeconfig_with,
    may,
    rights_of,
    token_of,
    tried,
)
from tests.kubernetes.conftest import SPEC, clusters_in
from tests.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dask_hpsearch.clusters.kubernetes.cluster import SearchKubeCluster

HALF = (
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
    {
        "apiGroups": ["kubernetes.dask.org"],
        "resources": ["daskclusters"],
        "verbs": ["get", "list", "create", "delete"],
    },
)
NO = 403
SPECS = Path(__file__).parents[2] / "cluster_specs"


def test_one_without_rights_is_told(namespace: str, image: str, tmp_path: Path) -> None:
    """The error has what is not allowed; nothing is left."""
    before = clusters_in(namespace)

    with (
        account(namespace, "nobody", (), tmp_path) as kubeconfig,
        pytest.raises(KubernetesRightsError, match="not allowed to read Pod"),
    ):
        kube_cluster(SPEC, image=image, namespace=namespace, kubeconfig=kubeconfig)

    assert clusters_in(namespace) <= before


def test_one_with_half_of_the_rights_leaves_nothing(
    namespace: str, image: str, tmp_path: Path
) -> None:
    """What was made before the refusal goes again, though the rest cannot be seen."""
    before = clusters_in(namespace)

    with (
        account(namespace, "half", HALF, tmp_path) as kubeconfig,
        pytest.raises(KubernetesRightsError, match=r"not allowed to create Secret"),
    ):
        kube_cluster(SPEC, image=image, namespace=namespace, kubeconfig=kubeconfig)

    # What the operator made in that moment goes with its owner, a moment later.
    wait_until(lambda: clusters_in(namespace) <= before)


@pytest.fixture(scope="module")
def operators(
    namespace: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Return a kubeconfig with the operator's token."""
    path = tmp_path_factory.mktemp("operator") / "kubeconfig"
    with token_of(operator.NAMESPACE, operator.NAME) as token:
        yield kubeconfig_with(token, namespace, path)


def test_the_operator_has_the_rights_that_it_uses(
    operators: str, namespace: str
) -> None:
    """All that its rules say and, what everybody has aside, nothing else."""
    said = {right for rule in operator.RULES for right in rights_of(rule)}
    has = granted(operators, namespace)
    everybodys = {
        right for right in has if right[1] in (AUTHORIZATION, "authentication.k8s.io")
    }

    assert has - everybodys == said


@pytest.mark.parametrize(
    ("method", "url", "in_namespace"),
    [
        ("GET", "secrets", True),
        ("POST", "secrets", True),
        ("GET", "configmaps", True),
        ("DELETE", "pods/some", True),
        ("POST", "pods/some/exec", True),
        ("DELETE", "services/some", True),
        ("PATCH", "apps/v1 deployments/some", True),
        ("POST", "apps/v1 daemonsets", True),
        ("POST", "batch/v1 jobs", True),
        ("DELETE", "kubernetes.dask.org/v1 daskworkergroups/some", True),
        ("POST", f"{RBAC}/v1 rolebindings", True),
        ("POST", f"{RBAC}/v1 clusterrolebindings", False),
        ("POST", "namespaces", False),
        ("GET", "nodes", False),
        ("DELETE", "apiextensions.k8s.io/v1 customresourcedefinitions/some", False),
    ],
)
def test_the_operator_is_refused_more(
    operators: str, namespace: str, method: str, url: str, *, in_namespace: bool
) -> None:
    """Tried with its own token."""
    place = namespace if in_namespace else None

    assert tried(operators, method, url, place) == NO


def test_the_operators_token_is_good(operators: str, namespace: str) -> None:
    """It was not for a bad token that it was refused."""
    assert tried(operators, "GET", "pods", namespace) == 200


def test_a_clusters_own_account_may_do_nothing(cluster: SearchKubeCluster) -> None:
    """Its pods have no business with Kubernetes."""
    namespace = str(cluster.namespace)
    who = f"{namespace}:{cluster.name}"
    kinds = ("pods", "secrets", "configmaps", "services")

    for resource in kinds:
        for verb in ("get", "list", "create", "delete"):
            assert not may(who, (verb, "", resource), namespace)


@pytest.mark.slow
def test_the_users_role_is_enough(
    namespace: str, image: str, home: Path, tmp_path: Path
) -> None:
    """From nothing to a fitted search, scaled meanwhile, and back to nothing."""
    role = yaml.safe_load((SPECS / "rights" / "user.yaml").read_text())
    search = GridSearchCV(GaussianNB(), {"var_smoothing": [1e-9, 1e-3]}, cv=2)
    before = clusters_in(namespace)

    with account(namespace, "user", role["rules"], tmp_path) as kubeconfig:
        with (
            kube_cluster(
                SPEC, image=image, namespace=namespace, kubeconfig=kubeconfig
            ) as made,
            made.get_client() as client,
        ):
            found = DaskSearchCV(search, client=client).fit(*load_iris(return_X_y=True))
            made.scale(1)
            made.adapt(0, 2)
            assert len(made.get_logs()) >= 2
            assert made.why_no_workers(permanent=True) is None
            with kube_cluster(
                name=made.name, namespace=namespace, kubeconfig=kubeconfig
            ) as again:
                assert again.dashboard_link
        assert clusters_in(namespace) <= before

    assert found.best_score_ > 0.9
