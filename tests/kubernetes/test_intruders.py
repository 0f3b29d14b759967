"""Who is not let in: refused at once, in words, with nothing run."""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from distributed import Client
from distributed.security import Security

from dask_hpsearch import kube_cluster
from dask_hpsearch.clusters import tls
from dask_hpsearch.clusters.kubernetes import manifests
from dask_hpsearch.clusters.kubernetes.diagnosis import is_ready
from dask_hpsearch.clusters.kubernetes.port_forward import PortForward
from dask_hpsearch.config.load import load_spec
from dask_hpsearch.exceptions import ClusterAccessError
from tests.certificates import Authority
from tests.kubernetes.accounts import account
from tests.kubernetes.conftest import SPEC, asked
from tests.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dask_hpsearch.clusters.kubernetes.api import KubernetesApi
    from dask_hpsearch.clusters.kubernetes.cluster import SearchKubeCluster

RIGHTS = Path(__file__).parents[2] / "cluster_specs" / "rights" / "user.yaml"
STRANGER = "stranger"  # a scheduler that belongs to another cluster
REFUSED_WITHIN_S = 2.0
BUSY_S = 2.0  # what a machine that others use may add where Dask's own client waits
WAIT_S = 180.0  # until a pod of little CPU has done its work
_logger = logging.getLogger(__name__)


@contextlib.contextmanager
def within(seconds: float, what: str) -> Iterator[None]:
    """See that something takes no longer."""
    began = time.monotonic()
    yield
    took = time.monotonic() - began
    _logger.info("%s: refused after %.2f s", what, took)
    assert took < seconds


@pytest.fixture(scope="module")
def door(cluster: SearchKubeCluster, namespace: str) -> Iterator[str]:
    """Return where the cluster's scheduler is reached from outside, without a scheme."""
    where = {"namespace": namespace}
    service = f"{cluster.name}-scheduler"
    forward = PortForward(service, [manifests.TUNNEL_PORT], where).start()
    yield f"127.0.0.1:{forward.port(manifests.TUNNEL_PORT)}"
    forward.close()


@pytest.fixture(scope="module")
def authority() -> Authority:
    """Return the authority of the other cluster."""
    return Authority(STRANGER)


@pytest.fixture(scope="module")
def stranger(namespace: str, image: str, authority: Authority) -> Iterator[str]:
    """Run a scheduler with certificates of its own; return where it is reached."""
    spec = load_spec(SPEC, image=image, namespace=namespace)
    scheduler = manifests.dask_cluster(STRANGER, namespace, spec, 0)["spec"][
        "scheduler"
    ]
    labels = {
        manifests.CLUSTER_LABEL: STRANGER,
        manifests.COMPONENT_LABEL: "scheduler",
    }

    async def make(api: KubernetesApi) -> None:
        service = {"apiVersion": "v1", "kind": "Service", "spec": scheduler["service"]}
        owner = await api.create(service | {"metadata": {"name": STRANGER}})
        for one in manifests.companions(STRANGER, spec, authority.issue(), owner):
            await api.create(one)
        metadata = {"name": STRANGER, "labels": labels}
        pod = {"apiVersion": "v1", "kind": "Pod", "spec": scheduler["spec"]}
        await api.create(pod | {"metadata": metadata})

    asked(make, namespace)
    try:
        wait_until(
            lambda: is_ready(asked(lambda api: api.get("Pod", STRANGER), namespace))
        )
        where = {"namespace": namespace}
        forward = PortForward(STRANGER, [manifests.TUNNEL_PORT], where).start()
        yield f"tls://127.0.0.1:{forward.port(manifests.TUNNEL_PORT)}"
        forward.close()
    finally:
        for kind in ("Pod", "Service"):  # which owns the rest
            asked(lambda api, kind=kind: api.delete(kind, STRANGER), namespace)


def security_of(certificates: tls.Certificates, folder: Path) -> Security:
    """Return what a client shows that has some certificates."""
    certificates.save(folder)
    return tls.client_security(folder)


def showing(trusted: Security, shown: Security) -> Security:
    """Return a client that trusts one cluster and shows another's certificate."""
    return Security(
        require_encryption=True,
        tls_ca_file=trusted.tls_ca_file,
        tls_client_cert=shown.tls_client_cert,
        tls_client_key=shown.tls_client_key,
    )


def members(cluster: SearchKubeCluster) -> tuple[int, list[str]]:
    """Count the clients of a cluster, and name its workers that are not its own."""
    with cluster.get_client() as client:
        clients = client.run_on_scheduler(
            lambda dask_scheduler: len(
                [name for name in dask_scheduler.clients if name.startswith("Client-")]
            )
        )
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        names = [str(one["name"]) for one in workers]
        return clients, [name for name in names if not name.startswith(cluster.name)]


def answered(door: str, context: ssl.SSLContext) -> bytes:
    """Return what is said to one who shakes hands; nothing, if the hand is not taken."""
    host, _, port = door.partition(":")
    with (
        contextlib.suppress(OSError),
        socket.create_connection((host, int(port))) as raw,
        context.wrap_socket(raw) as connection,
    ):
        return connection.recv(1)
    return b""


def test_one_without_a_certificate_is_refused(
    cluster: SearchKubeCluster, door: str
) -> None:
    """Before it is asked for anything; Dask's own client does not get in either."""
    before = members(cluster)
    bare = Security(
        require_encryption=True, tls_ca_file=str(cluster.security.tls_ca_file)
    )

    with (
        within(REFUSED_WITHIN_S, "no certificate"),
        pytest.raises(ClusterAccessError, match="requires one of its certificates"),
    ):
        tls.check_scheduler(f"tls://{door}", bare)
    context = ssl.create_default_context(cafile=bare.tls_ca_file)
    context.check_hostname = False
    with within(REFUSED_WITHIN_S, "TLS without a certificate"):
        assert answered(door, context) == b""
    with within(REFUSED_WITHIN_S + BUSY_S, "plain TCP"), pytest.raises(OSError):
        Client(f"tcp://{door}", timeout="2s", set_as_default=False)

    assert members(cluster) == before


def test_another_clusters_certificate_is_refused(
    cluster: SearchKubeCluster, door: str, authority: Authority, tmp_path: Path
) -> None:
    """Each side refuses the other, and the error says which."""
    before = members(cluster)
    foreign = security_of(authority.issue(), tmp_path / "foreign")
    posing = showing(cluster.security, foreign)

    for security, says in (
        (foreign, "not from the cluster's authority"),
        (posing, "not of this cluster"),
    ):
        with (
            within(REFUSED_WITHIN_S, "another cluster's certificate"),
            pytest.raises(ClusterAccessError, match=says),
        ):
            tls.check_scheduler(f"tls://{door}", security)
    with (
        within(REFUSED_WITHIN_S + BUSY_S, "Dask's client with it"),
        pytest.raises((OSError, AssertionError)),
    ):
        Client(f"tls://{door}", security=posing, timeout="2s", set_as_default=False)

    assert members(cluster) == before


def test_an_expired_certificate_is_refused(
    stranger: str, authority: Authority, tmp_path: Path
) -> None:
    """By us in words, and by the scheduler whose authority made it."""
    valid = security_of(authority.issue(), tmp_path / "valid")
    expired = security_of(authority.issue(expired=True), tmp_path / "expired")

    tls.check_scheduler(stranger, valid)
    with (
        within(REFUSED_WITHIN_S, "an expired certificate"),
        pytest.raises(ClusterAccessError, match="expired at"),
    ):
        tls.check_scheduler(stranger, expired)
    with (
        within(REFUSED_WITHIN_S + BUSY_S, "Dask's client with it"),
        pytest.raises((OSError, AssertionError)),
    ):
        Client(stranger, security=expired, timeout="2s", set_as_default=False)


def test_a_fake_scheduler_is_not_spoken_to(
    cluster: SearchKubeCluster, stranger: str
) -> None:
    """Whoever takes the scheduler's place has no certificate of the cluster."""
    with (
        within(REFUSED_WITHIN_S, "a fake scheduler"),
        pytest.raises(ClusterAccessError, match="is not this cluster's scheduler"),
    ):
        tls.check_scheduler(stranger, cluster.security)


def test_attaching_to_a_fake_cluster_is_refused(
    cluster: SearchKubeCluster,
    namespace: str,
    authority: Authority,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A user who cannot read the cluster's Secret keeps to the certificates that are here."""
    folder = tmp_path / "clusters" / f"{namespace}.{cluster.name}"
    authority.issue().of("client").save(folder)
    monkeypatch.setenv("DASK_HPSEARCH_HOME", str(tmp_path))
    role = yaml.safe_load(RIGHTS.read_text())
    rules = [rule for rule in role["rules"] if "secrets" not in rule["resources"]]

    with (
        account(namespace, "no-secrets", rules, tmp_path) as kubeconfig,
        pytest.raises(
            ClusterAccessError, match="is not this cluster's scheduler"
        ) as caught,
    ):
        kube_cluster(name=cluster.name, namespace=namespace, kubeconfig=kubeconfig)

    assert any(
        "the current ones cannot be read" in note for note in caught.value.__notes__
    )


INTRUDER = """
import sys, time
from distributed import Client
began = time.monotonic()
try:
    Client(sys.argv[1], timeout="2s")
except Exception as error:
    said = f"refused after {time.monotonic() - began} {type(error).__name__}"
else:
    said = "let in"
open("/dev/termination-log", "w").write(said)
"""
PLAIN_WORKER = ("-m", "distributed.cli.dask_worker")
NO_NANNY = ("--no-nanny", "--no-dashboard", "--death-timeout", "4")


def pods_of_intruders(
    cluster: SearchKubeCluster, namespace: str, image: str
) -> dict[str, dict[str, Any]]:
    """Return pods that try to be clients and workers of a cluster."""
    tls_address = manifests.scheduler_address(cluster.name, namespace)
    tcp_address = tls_address.replace("tls:", "tcp:")
    bare = {"restartPolicy": "Never", "automountServiceAccountToken": False}

    def running(*arguments: str) -> dict[str, Any]:
        container = {"name": "intruder", "image": image, "args": ["python", *arguments]}
        return {**bare, "containers": [container]}

    spec = load_spec(SPEC, image=image, namespace=namespace)
    foreign = manifests.dask_cluster(STRANGER, namespace, spec, 0)["spec"]["worker"]
    [container] = foreign["spec"]["containers"]
    for variable in container["env"]:
        if variable["name"] == "DASK_SCHEDULER_ADDRESS":
            variable["value"] = tls_address
    return {
        "client-tls": running("-c", INTRUDER, tls_address),
        "client-tcp": running("-c", INTRUDER, tcp_address),
        "worker-tcp": running(*PLAIN_WORKER, tcp_address, *NO_NANNY),
        "worker-tls": foreign["spec"] | bare,
    }


def test_other_pods_are_not_let_in(
    cluster: SearchKubeCluster, namespace: str, image: str, stranger: str
) -> None:
    """Clients and workers inside Kubernetes, with another cluster's certificate or none."""
    del stranger  # whose Secret one of the workers has
    before = members(cluster)
    pods = pods_of_intruders(cluster, namespace, image)
    for name, spec in pods.items():
        metadata = {"name": f"intruder-{name}"}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
        asked(lambda api, pod=pod: api.create(pod), namespace)

    def end_of(name: str) -> dict[str, Any]:
        pod = asked(lambda api: api.get("Pod", f"intruder-{name}"), namespace)
        [container] = pod["status"].get("containerStatuses") or [{}]
        end: dict[str, Any] = container.get("state", {}).get("terminated") or {}
        return end

    for name in pods:
        wait_until(lambda name=name: end_of(name), within_s=WAIT_S)
    assert members(cluster) == before
    for name in ("client-tls", "client-tcp"):
        said = end_of(name)["message"]
        _logger.info("%s: %s", name, said)
        assert said.startswith("refused after ")
        assert float(said.split()[2]) < REFUSED_WITHIN_S + BUSY_S
    assert end_of("worker-tls")["exitCode"] == manifests.EXIT_REFUSED
    assert end_of("worker-tls")["message"].startswith("refused: ")
    assert end_of("worker-tcp")["exitCode"] != 0
