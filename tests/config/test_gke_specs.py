"""Specs of GKE clusters: what is accepted, and what the one error says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dask_hpsearch.config.cluster import IDLE_TIMEOUT_S, ClusterSpec
from dask_hpsearch.config.gke_parts import ON_DEMAND_LABEL, WORKERS_LABEL
from dask_hpsearch.config.load import load_gke_spec
from dask_hpsearch.config.machines import machine
from dask_hpsearch.exceptions import SpecError
from tests.gcp.specs import SMALL, spec

if TYPE_CHECKING:
    from dask_hpsearch.config.gke import GKESpec

EXAMPLES = sorted((Path(__file__).parents[2] / "cluster_specs").glob("gke-*.yaml"))
IMAGE = "localhost/x@sha256:" + "0" * 64
GIB = 2**30


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_examples_are_specs(path: Path) -> None:
    """Every file that is offered as an example can be used, with a project of one's own."""
    found = load_gke_spec(path, project="other-project", store="gs://their/folder")

    assert found.project == "other-project"
    assert isinstance(found.cluster_spec(IMAGE), ClusterSpec)


def test_the_spot_example_shows_the_defaults() -> None:
    """What the example spells out is what a spec without it has."""
    shown = load_gke_spec(EXAMPLES[1])
    least = load_gke_spec(
        {
            "project": shown.project,
            "location": shown.location,
            "store": shown.store,
            "dask": shown.dask,
        }
    )

    assert shown.model_dump() == least.model_dump()
    assert shown.dask.idle_timeout == IDLE_TIMEOUT_S


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"project": "P"}, ["project", "'P'"]),
        ({"location": "Europe"}, ["location", "europe-west4-a"]),
        ({"location": "europe-west4"}, ["is a region", "zones: [europe-west4-b]"]),
        (
            {"location": "europe-west4", "zones": ["europe-west1-b"]},
            ["europe-west1-b", "not in europe-west4"],
        ),
        ({"zones": ["europe-west4-b"]}, ["lack the location 'europe-west4-a'"]),
        ({"name": "x" * 41}, ["name", "up to 40"]),
        ({"name": "-x"}, ["name", "'-x'"]),
        ({"store": "bucket/folder"}, ["store", "gs://BUCKET"]),
        ({"labels": {"Team": "x"}}, ["labels", "lower-case"]),
        ({"labels": {"owner": "x"}}, ["labels ['owner'] are reserved"]),
        ({"ttl_hours": 0}, ["ttl_hours", "0"]),
        (
            {"ttl_hours": 30, "pools": {"system": {"max_run_hours": 24}}},
            ["max_run_hours 24 is less than ttl_hours 30"],
        ),
        ({"image": "dask:latest"}, ["image", "latest"]),
        ({"control_plane": {"dns_endpoint": False}}, ["would be unreachable"]),
        (
            {"control_plane": {"ip_endpoint": True}},
            ["authorized_networks", "open to the internet"],
        ),
        (
            {"control_plane": {"authorized_networks": ["10.0.0.1/8"]}},
            ["authorized_networks", "10.0.0.1/8"],
        ),
        ({"pools": {"system": {"spot": True}}}, ["pools.system.spot", "preempted"]),
        ({"pools": {"workers": {"grace": 60}}}, ["pools.workers.grace", "30 or 120"]),
        (
            {"pools": {"workers": {"spot": False, "grace": 30}}},
            ["grace 30 is for spot nodes"],
        ),
        (
            {"pools": {"workers": {"min_nodes": 12}}},
            ["min_nodes 12 is greater than max_nodes 10"],
        ),
        (
            {"pools": {"workers": {"max_nodes": 3}}},
            ["dask.workers.max 10", "max_nodes 3"],
        ),
        ({"pools": {"worker": {}}}, ["did you mean 'workers'"]),
        (
            {"pools": {"workers": {"machine_type": "n2-standard-4"}}},
            ["dask.workers does not fit on a n2-standard-4", "CPUs"],
        ),
        (
            {"pools": {"system": {"machine_type": "e2-highcpu-2"}}},
            ["dask.scheduler does not fit on a e2-highcpu-2"],
        ),
        (
            {"pools": {"workers": {"machine_type": "n4-standard-8"}}},
            ["pools.workers", "pd-balanced", "n4-standard-8", "hyperdisk-balanced"],
        ),
        (
            {
                "pools": {
                    "system": {
                        "machine_type": "c3-standard-4",
                        "disk_type": "pd-standard",
                    }
                }
            },
            ["pools.system", "pd-standard", "pd-balanced or pd-ssd"],
        ),
        (
            {
                "pools": {"system": {"max_nodes": 1}},
                "dask": {**SMALL["dask"], "driver": {"cpu": 3, "memory": "8Gi"}},
            },
            ["pools.system", "beside the scheduler", "raise max_nodes"],
        ),
        ({"dask": {}}, ["dask.workers is missing"]),
        ({"dask": {"image": "x:1"}}, ["dask.image is not a field"]),
        ({"autopilot": True}, ["autopilot is not a field"]),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_cannot_work_is_told(changes: dict[str, Any], says: list[str]) -> None:
    """Each wrong field is named with its value, and what is allowed."""
    with pytest.raises(SpecError) as raised:
        spec(**changes)

    assert all(words in str(raised.value) for words in says), str(raised.value)


@pytest.mark.parametrize(
    ("part", "value", "says"),
    [
        ({"nodes": "spot"}, {}, "omit nodes"),
        ({"notice": 120}, {}, "notice 120 is greater than the 102 s"),
        ({"notice": 20}, {"grace": 30}, "notice 20 is greater than the 12 s"),
    ],
)
def test_workers_that_do_not_suit_their_nodes_are_told(
    part: dict[str, Any], value: dict[str, Any], says: str
) -> None:
    """Nodes are the pools' matter, and a notice must fit into what nodes give."""
    workers = SMALL["dask"]["workers"] | part

    with pytest.raises(SpecError, match=says):
        spec(dask={"workers": workers}, pools={"workers": value})


def test_dask_runs_where_its_pools_are() -> None:
    """Workers on the pool of workers, whose taints they put up with; the rest not."""
    found = spec().cluster_spec(IMAGE)

    assert found.image == IMAGE
    assert found.namespace == "dask-hpsearch"
    assert found.workers.nodes == "spot"
    assert found.nodes.spot.selector == {WORKERS_LABEL: "true"}
    assert {one.key for one in found.nodes.spot.tolerations} == {
        WORKERS_LABEL,
        "cloud.google.com/gke-spot",
    }
    assert found.scheduler.nodes == "on-demand"
    assert found.nodes.on_demand.selector == {ON_DEMAND_LABEL: "true"}
    assert found.nodes.on_demand.tolerations == ()


def test_a_driver_is_as_large_as_a_systems_node_lets_it() -> None:
    """As large as a worker it would wait for ever; one that is told its size has it."""
    cut = spec().cluster_spec(IMAGE).driver
    big = {"system": {"machine_type": "n2-standard-8"}}
    whole = spec(pools=big).cluster_spec(IMAGE).driver
    told = spec(dask={**SMALL["dask"], "driver": {"cpu": 1}}).cluster_spec(IMAGE).driver

    assert (cut.cpu, cut.memory) == ("3100m", "11745Mi")
    assert cut.nodes == "on-demand"
    assert (whole.cpu, whole.memory) == (None, None)
    assert told.cpu == "1"
    with pytest.raises(SpecError, match=r"dask\.driver does not fit"):
        spec(dask={**SMALL["dask"], "driver": {"cpu": 6}})


def test_workers_leave_within_what_a_node_gives() -> None:
    """Without a longer period, pods of a spot node have 15 s in all."""
    short = spec(pools={"workers": {"grace": None}}).cluster_spec(IMAGE)
    steady = spec(pools={"workers": {"spot": False}}).cluster_spec(IMAGE)

    assert short.workers.notice == 12
    assert steady.workers.notice == 25
    assert [one.key for one in steady.nodes.spot.tolerations] == [WORKERS_LABEL]


def test_modules_are_found_from_the_specs_folder(tmp_path: Path) -> None:
    """As the image's builder is given them, wherever the command is started."""
    text = EXAMPLES[1].read_text().replace("modules: []", "modules: [mine.py]")
    file = tmp_path / "spec.yaml"
    file.write_text(text)

    assert load_gke_spec(file).dask.modules == (str(tmp_path / "mine.py"),)


def test_names_are_as_google_has_them() -> None:
    """Paths, hosts and accounts follow from project, location and names."""
    found: GKESpec = spec()

    assert found.path == (
        "projects/some-project/locations/europe-west4-a/clusters/searches"
    )
    assert found.region == "europe-west4"
    assert found.image_name == (
        "europe-west4-docker.pkg.dev/some-project/dask-hpsearch/dask-hpsearch"
    )
    assert found.bucket == "some-bucket"
    old = spec(project="example.com:old-project")
    assert old.nodes_run_as == (
        "dask-hpsearch-nodes@old-project.example.com.iam.gserviceaccount.com"
    )


@pytest.mark.parametrize(
    ("machine_type", "cpu_millis", "gib"),
    [("n2-standard-8", 7910, 27.7), ("e2-standard-4", 3920, 12.97)],
)
def test_what_a_node_keeps_for_itself_is_as_google_says(
    machine_type: str, cpu_millis: int, gib: float
) -> None:
    """As measured on nodes, less what its pods on every node request."""
    node = machine(machine_type)

    assert node is not None
    assert node.pod_cpu_millis == cpu_millis - 600
    assert node.pod_memory / GIB == pytest.approx(gib - 1, abs=0.1)


@pytest.mark.parametrize(
    "machine_type", ["e2-medium", "a3-highgpu-8g", "x9-standard-4"]
)
def test_of_machines_that_are_not_known_nothing_is_said(machine_type: str) -> None:
    """Then Kubernetes says whether a pod fits."""
    assert machine(machine_type) is None
