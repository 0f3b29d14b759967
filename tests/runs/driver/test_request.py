"""What a driver's program is started with."""

from __future__ import annotations

import json

import pytest

from dask_hpsearch.clusters.kubernetes.driver_job import PodEnvironment
from dask_hpsearch.runs.driver.request import DriverRequest

ENVIRONMENT = PodEnvironment(
    address="tls://s:8786",
    certificates="/certificates",
    signing_key="/key.pem",
    scratch="/scratch",
    cluster="c",
    namespace="n",
    job="j",
)
LOCAL = DriverRequest(
    run="gs://bucket/store/runs/20261125-010203-0123abcd",
    store="gs://bucket/store",
    driver="d",
    generation=1,
    n_iter_more=4,
    ignored=("requests/stopped-1",),
    limits={"max_time_s": 5.0},
    keep_cluster=False,
    client="/private",
)
IN_POD = DriverRequest(
    run="gs://bucket/store/runs/20261125-010203-0123abcd",
    store="gs://bucket/store",
    driver="d",
    maker="a key",
    modules=("modules/a.zip",),
    environment=ENVIRONMENT,
)


@pytest.mark.parametrize("request_", [LOCAL, IN_POD], ids=["local", "pod"])
def test_a_request_goes_through_json(request_: DriverRequest) -> None:
    """It is one argument of a command."""
    text = json.dumps(request_.to_json())

    assert DriverRequest.from_json(json.loads(text)) == request_


def test_the_environment_of_a_pod_is_added_where_the_pod_is_described() -> None:
    """The request of a Job has none before."""
    values = LOCAL.to_json() | ENVIRONMENT.to_json()

    assert DriverRequest.from_json(LOCAL.to_json()).environment is None
    assert DriverRequest.from_json(values).environment == ENVIRONMENT


def test_the_name_of_the_run_is_the_end_of_its_url() -> None:
    """Logs on this machine have that name."""
    assert LOCAL.run_id == "20261125-010203-0123abcd"
