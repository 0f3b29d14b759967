"""GKE's fake in a pod of its own, which other pods reach by TLS; it tells what it is asked."""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import grpc

from dask_hpsearch.gcp.gke import labels as ours
from dask_hpsearch.gcp.gke import requests
from tests.fakes.clock import RunningClock
from tests.fakes.gke import FakeClusters
from tests.fakes.serving import Refused, Traffic, serving
from tests.gcp.specs import spec

if TYPE_CHECKING:
    from pathlib import Path

NAME, PORT = "gke", 4443
FOLDER = "/etc/google"
LIFE_S = 10.0  # of the cluster, after the first look at it
_SPEED = 60.0
DENIED = Refused("PERMISSION_DENIED", "no", "IAM_PERMISSION_DENIED")


def manifests(image: str, *, refusals: int = 0) -> list[dict[str, Any]]:
    """Return the pod, and the service by which it is found.

    Parameters
    ----------
    image : str
    refusals : int
        How many calls are refused at first, as before IAM bindings exist.
    """
    labels = {"app": NAME}
    container = {
        "name": NAME,
        "image": image,
        "args": ["python", "-u", "-m", "tests.kubernetes.far_gke", str(refusals)],
        "ports": [{"containerPort": PORT}],
        "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1},
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}},
        "volumeMounts": [{"name": "google", "mountPath": FOLDER}],
    }
    metadata = {"name": NAME, "labels": labels}
    pod = {
        "containers": [container],
        "terminationGracePeriodSeconds": 1,
        "volumes": [{"name": "google", "secret": {"secretName": "google"}}],
    }
    service = {"selector": labels, "ports": [{"port": PORT}]}
    return [
        {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod},
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": service},
    ]


class _Told(Traffic):
    """Writes each call down as it comes."""

    def answer(self, name: str, method: Any, request: Any) -> Any:
        sys.stdout.write(f"asked {name}\n")
        sys.stdout.flush()
        return super().answer(name, method, request)


def main(folder: Path, refusals: int) -> None:
    """Serve one cluster, whose time is over soon after a look at it; say when it is gone."""
    clock = RunningClock(time.time(), speed=_SPEED)
    fake, told = FakeClusters(clock), _Told()
    told.fail("GetCluster", DENIED, times=refusals)
    wanted = spec()
    labels = ours.for_cluster(
        wanted, expires_at=time.time() + 3600, creation="somebody"
    )
    pools = list(requests.cluster(wanted, labels).node_pools)
    made = fake.add(wanted.path, resource_labels=labels, node_pools=pools)
    key, certificate = (
        (folder / "tls.key").read_bytes(),
        (folder / "roots.pem").read_bytes(),
    )
    credentials = grpc.ssl_server_credentials([(key, certificate)])
    with serving(told, fake, certificate=credentials, address=f"0.0.0.0:{PORT}"):
        while len(told.calls) <= refusals:
            time.sleep(0.2)
        ends = ours.time_text(time.time() + LIFE_S)
        made.resource_labels = labels | {ours.EXPIRES_AT: ends}
        while fake.named(wanted.path) is not None:
            time.sleep(0.5)
        sys.stdout.write("gone\n")
        sys.stdout.flush()
        threading.Event().wait()


if __name__ == "__main__":
    from pathlib import Path

    main(Path(FOLDER), int(sys.argv[1]))
