"""Before there is an operator, and how it comes; this file is run first."""

from __future__ import annotations

import os

import pytest

from dask_hpsearch import cli, kube_cluster
from dask_hpsearch.clusters.kubernetes import operator
from dask_hpsearch.exceptions import OperatorMissingError, PodStartError
from tests.kubernetes.conftest import SPEC, asked, objects_of
from tests.kubernetes.tidying import ALONE_VARIABLE


@pytest.fixture(scope="module")
def untouched(bare_namespace: str) -> str:
    """Return a namespace of a Kubernetes that has no operator."""
    found = asked(operator.status)
    if found.definitions or found.image:
        if not os.environ.get(ALONE_VARIABLE):
            pytest.skip(f"others may use the operator; {ALONE_VARIABLE}=1 says no")
        asked(operator.remove)
    return bare_namespace


def test_without_the_operators_kinds_it_is_told(untouched: str, image: str) -> None:
    """The error has the command that brings them; nothing is left."""
    with pytest.raises(OperatorMissingError, match="dask-hpsearch operator install"):
        kube_cluster(SPEC, image=image, namespace=untouched)

    assert objects_of(untouched) == []
    assert asked(operator.status).definitions == 0


def test_an_operator_that_does_not_act_is_told(
    untouched: str, image: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its kinds are known, and nobody makes pods of them; nothing is left."""
    with pytest.raises(PodStartError, match=r"localhost/nowhere:1.*cannot be pulled"):
        asked(lambda api: operator.install(api, "localhost/nowhere:1"))
    with pytest.raises(OperatorMissingError, match="dask-hpsearch operator status"):
        kube_cluster(SPEC, image=image, namespace=untouched)

    assert objects_of(untouched) == []
    assert cli.main(["operator", "status"]) != 0
    assert (
        "custom resource definitions: 4 of 4\noperator: not ready"
        in capsys.readouterr().out
    )


def test_installing_twice_is_installing_once(namespace: str, image: str) -> None:
    """The second time changes nothing: no restart."""
    del namespace, image
    running = asked(operator.status).image

    def made() -> str:
        deployment = asked(
            lambda api: api.get("Deployment", operator.NAME), operator.NAMESPACE
        )
        return str(deployment["metadata"]["generation"])

    before = made()
    asked(lambda api: operator.install(api, running))

    assert made() == before
    assert cli.main(["operator", "status"]) == 0
