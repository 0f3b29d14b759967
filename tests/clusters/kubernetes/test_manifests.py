"""The objects that a spec becomes: what pods may do, and where they run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dask_hpsearch.clusters import tls
from dask_hpsearch.clusters.kubernetes import manifests
from dask_hpsearch.clusters.kubernetes.api import split_log_line
from dask_hpsearch.clusters.kubernetes.cluster import kube_cluster, without_other_links
from dask_hpsearch.clusters.kubernetes.diagnosis import (
    Problem,
    deployment_problem,
    first_log,
    last_lines,
    pod_problem,
    worst,
)
from dask_hpsearch.clusters.kubernetes.scheduler_routes import (
    Load,
    choose_leaving,
    target_workers,
)
from dask_hpsearch.clusters.versions import check_versions, versions_here
from dask_hpsearch.config.load import load_spec
from dask_hpsearch.exceptions import (
    ClusterNameError,
    MissingModuleError,
    VersionSkewError,
)
from dask_hpsearch.joblib_backend.results import result_of
from dask_hpsearch.messages import Outcome

SPOT = Path(__file__).parents[3] / "cluster_specs" / "spot-nodes.yaml"
OWNER = {
    "apiVersion": "kubernetes.dask.org/v1",
    "kind": "DaskCluster",
    "metadata": {"uid": "0"},
}


def pods_of(**changes: Any) -> dict[str, Any]:
    """Return the pods' specs of the spot example, by component."""
    cluster = manifests.dask_cluster("a", "here", load_spec(SPOT, **changes), 2)
    return {part: cluster["spec"][part]["spec"] for part in ("scheduler", "worker")}


@pytest.mark.parametrize("component", ["scheduler", "worker"])
def test_pods_may_do_little(component: str) -> None:
    """No root, no token, no capability, nothing to write but one volume."""
    pod = pods_of()[component]
    [container] = pod["containers"]

    assert pod["automountServiceAccountToken"] is False
    assert pod["serviceAccountName"] == "a"
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["resources"]["limits"] == container["resources"]["requests"]
    assert not any("hostPath" in volume for volume in pod["volumes"])


def test_workers_go_to_spot_nodes_and_the_scheduler_does_not() -> None:
    """What a spot node takes with it is a worker, never the whole cluster."""
    pods = pods_of()

    spot = {"cloud.google.com/gke-spot": "true"}
    assert pods["worker"]["nodeSelector"] == spot
    assert pods["worker"]["tolerations"][0]["operator"] == "Equal"
    assert "affinity" in pods["worker"]
    assert pods["scheduler"]["nodeSelector"] != spot
    assert pods["scheduler"]["tolerations"] == []


def test_a_pod_mounts_the_keys_of_its_role() -> None:
    """A worker cannot pass for the scheduler by a file that it happens to have."""
    for role, pod in pods_of().items():
        secret = pod["volumes"][1]["secret"]
        names = [item["key"] for item in secret["items"]]
        assert names == list(tls.role_files(role))  # type: ignore[arg-type]


def test_keys_are_in_the_secret_alone() -> None:
    """No environment, no DaskCluster, no policy holds a key."""
    spec = load_spec(SPOT)
    objects = manifests.companions("a", spec, tls.issue("a"), OWNER)
    others = [one for one in objects if one["kind"] != "Secret"]

    text = json.dumps([*others, manifests.dask_cluster("a", "here", spec, 2)])
    assert "PRIVATE KEY" not in text
    assert "BEGIN" not in text


def test_all_of_a_cluster_ends_with_it() -> None:
    """Kubernetes removes what belongs to a DaskCluster that goes."""
    objects = manifests.companions("a", load_spec(SPOT), tls.issue("a"), OWNER)

    assert {one["kind"] for one in objects} == {
        "NetworkPolicy",
        "Secret",
        "ServiceAccount",
    }
    for one in objects:
        assert one["metadata"]["ownerReferences"][0]["name"] == "a"
        assert one["metadata"]["labels"]["team"] == "research"


def test_an_account_of_the_users_own_is_used() -> None:
    """Where a spec names an account, none is made."""
    spec = load_spec(SPOT, service_account="mine")
    objects = manifests.companions("a", spec, tls.issue("a"), OWNER)

    assert "ServiceAccount" not in {one["kind"] for one in objects}
    assert pods_of(service_account="mine")["worker"]["serviceAccountName"] == "mine"


def test_secrets_reach_the_workers_by_name() -> None:
    """Their values are Kubernetes' business."""
    [container] = pods_of(secrets=["token"])["worker"]["containers"]

    assert container["envFrom"] == [{"secretRef": {"name": "token"}}]


def test_a_users_variables_do_not_undo_ours() -> None:
    """TLS stays on, whatever the environment says."""
    pod = pods_of(environment={"A": "1"})["worker"]
    variables = {one["name"]: one["value"] for one in pod["containers"][0]["env"]}

    assert variables["A"] == "1"
    assert variables["DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION"] == "true"


def pod_with(**status: Any) -> dict[str, Any]:
    """Return a pod as Kubernetes reports it."""
    return {"metadata": {"name": "p"}, "status": status}


@pytest.mark.parametrize(
    ("status", "outlook", "says"),
    [
        (
            {
                "containerStatuses": [
                    {
                        "image": "x:1",
                        "state": {
                            "waiting": {"reason": "ErrImagePull", "message": "gone"}
                        },
                    }
                ]
            },
            "stuck",
            "'x:1' cannot be pulled: gone",
        ),
        (
            {
                "containerStatuses": [
                    {
                        "restartCount": 3,
                        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                        "lastState": {"terminated": {"exitCode": 7}},
                    }
                ]
            },
            "crash",
            "exit code 7",
        ),
        (
            {
                "containerStatuses": [
                    {
                        "restartCount": 1,
                        "state": {},
                        "lastState": {"terminated": {"reason": "OOMKilled"}},
                    }
                ]
            },
            "crash",
            "OOMKilled",
        ),
        (
            {
                "conditions": [
                    {
                        "type": "PodScheduled",
                        "status": "False",
                        "message": "Insufficient cpu",
                    }
                ]
            },
            "wait",
            "Insufficient cpu",
        ),
    ],
)
def test_what_keeps_a_pod_from_running_is_said(
    status: dict[str, Any], outlook: str, says: str
) -> None:
    """Kubernetes' own words, and whether waiting may help."""
    problem = pod_problem(pod_with(**status))

    assert problem is not None
    assert problem.outlook == outlook
    assert says in problem.message


def test_a_pod_that_starts_is_no_problem() -> None:
    """Creating a container takes its time."""
    waiting = {"reason": "ContainerCreating"}
    status = {"containerStatuses": [{"state": {"waiting": waiting}}]}

    assert pod_problem(pod_with(**status)) is None
    assert pod_problem(pod_with(phase="Pending")) is None


def test_a_used_up_quota_is_told() -> None:
    """A Deployment that may make no pod says so itself."""
    condition = {
        "type": "ReplicaFailure",
        "status": "True",
        "message": "exceeded quota: small",
    }
    deployment = {"metadata": {"name": "d"}, "status": {"conditions": [condition]}}

    problem = deployment_problem(deployment)

    assert problem is not None
    assert "exceeded quota" in problem.message


def test_a_logs_end_is_quoted() -> None:
    """The last lines with something in them."""
    assert last_lines("a\n\nb\nc\n", n=2) == "    b\n    c"


def test_idle_workers_leave_first() -> None:
    """A worker with nothing to do costs nothing to let go."""
    loads = [Load(2, 0, "a", "A"), Load(0, 5, "b", "B"), Load(0, 1, "c", "C")]

    assert [load.name for load in choose_leaving(loads, 2)] == ["C", "B"]
    assert choose_leaving(loads, 0) == []
    assert len(choose_leaving(loads, 9)) == 3


@pytest.mark.parametrize(("tasks", "workers"), [(0, 0), (1, 1), (4, 1), (5, 2)])
def test_there_is_a_worker_for_all_work(tasks: int, workers: int) -> None:
    """As many workers as their slots would take up the tasks; none for none."""
    assert target_workers(tasks, 4) == workers


def test_differing_versions_are_refused_with_both_lists() -> None:
    """What one side pickles the other could not load."""
    ours = versions_here()
    theirs = {**ours, "numpy": "1.0"}
    del theirs["dask"]

    with pytest.raises(VersionSkewError) as caught:
        check_versions(ours, theirs, "image:1")

    message = str(caught.value)
    assert f"Client: dask {ours['dask']}, numpy {ours['numpy']}" in message
    assert "Image: dask none, numpy 1.0" in message
    assert "dask-hpsearch image build" in message
    check_versions(ours, ours | {"pandas": "9"} if "pandas" not in ours else ours, "i")


@pytest.mark.parametrize(
    ("code", "outlook"),
    [(manifests.EXIT_SKEW, "skew"), (manifests.EXIT_REFUSED, "crash")],
)
def test_why_a_worker_refused_is_told(code: int, outlook: str) -> None:
    """In its own words, which are the last line of its log, at its first end."""
    words = "a line\nrefused: the image x:1 has other versions\n"
    ended = {"exitCode": code, "message": words}
    container = {"restartCount": 0, "state": {"terminated": ended}}

    problem = pod_problem(pod_with(containerStatuses=[container]))

    assert problem is not None
    assert problem.outlook == outlook
    assert problem.message == "pod p: the image x:1 has other versions"


def test_what_a_pod_wrote_last_is_kept() -> None:
    """Kubernetes has it when the container is gone; it is quoted."""
    ended = {"reason": "OOMKilled", "exitCode": 137, "message": "one\ntwo\n"}
    container = {"restartCount": 1, "state": {}, "lastState": {"terminated": ended}}

    problem = pod_problem(pod_with(containerStatuses=[container]))

    assert problem is not None
    assert problem.quoted(problem.log) == (
        "pod p: it used more memory than its limit (OOMKilled). The end of its log:\n"
        "    one\n    two"
    )


def test_a_pod_that_has_recovered_is_no_problem() -> None:
    """What ended before counts no more once it is ready."""
    ended = {"reason": "OOMKilled", "exitCode": 137}
    container = {"ready": True, "restartCount": 1, "lastState": {"terminated": ended}}

    assert pod_problem(pod_with(containerStatuses=[container])) is None


def test_the_worst_problem_is_told() -> None:
    """Rather what stays so than what may pass."""
    problems = [
        Problem("wait", "a"),
        None,
        Problem("crash", "b"),
        Problem("stuck", "c"),
    ]

    assert worst(problems) == Problem("crash", "b")
    assert worst([None]) is None


def test_what_is_no_log_is_not_quoted() -> None:
    """Kubernetes may say instead that it has removed the file."""
    gone = (
        "failed to open log file: open /var/log/pods/p/1.log: no such file or directory"
    )

    assert first_log(["", gone, "unable to retrieve container logs for x", "a"]) == "a"
    assert first_log([gone]) == ""


@pytest.mark.parametrize(
    "name", ["", "a" * 54, "Forest", "my_search", "1st", "a-", "-a", "a.b", "ä", "a b"]
)
def test_a_name_that_kubernetes_would_refuse_is_refused(name: str) -> None:
    """Before anything is made, with the rule."""
    with pytest.raises(ClusterNameError, match="at most 53 characters") as caught:
        kube_cluster(SPOT, name=name)

    assert repr(name) in str(caught.value)


@pytest.mark.parametrize("name", ["a", "forest-2", "a" * 53])
def test_a_name_that_kubernetes_takes_is_taken(name: str) -> None:
    """Letters, digits, hyphens."""
    manifests.check_name(name)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (
            "2026-01-01T00:00:00.123456789Z a line",
            ("2026-01-01T00:00:00.123456789Z", "a line"),
        ),
        ("2026-01-01T00:00:00Z ", ("2026-01-01T00:00:00Z", "")),
        ("unable to retrieve container logs for containerd://abc", None),
        ("failed to create fsnotify watcher: too many open files", None),
        ("", None),
    ],
)
def test_a_kubelets_word_is_no_line_of_a_log(
    line: str, found: tuple[str, str] | None
) -> None:
    """It has no time, and would be taken for one."""
    assert split_log_line(line) == found


def test_of_all_dashboards_the_one_that_is_reached_is_shown() -> None:
    """Dask's page has those of scheduler and workers too, which are addresses of pods."""
    link = "http://127.0.0.1:4000/status"
    page = "".join(
        f'<a href="{one}" target="_blank">{one}</a>;'
        for one in (link, "http://10.1.2.3:8787/status", "")
    )

    shown = without_other_links(page, link)

    assert shown.count("<a ") == 1
    assert link in shown
    assert "10.1.2.3" not in shown
    assert "<a " not in without_other_links(page, "")


def test_a_module_that_an_image_lacks_goes_into_the_spec() -> None:
    """What is sent to workers in pods would go with them."""
    lacking = Outcome(1, "unreadable", b"my_module.part", image="place/image:1")

    with pytest.raises(MissingModuleError) as caught:
        result_of(lacking, what="a fit")

    said = str(caught.value)
    assert "add its package to requirements:" in said
    assert "in the cluster's spec and rebuild the image" in said
    assert "place/image:1" in said
    assert "upload_file" not in said
