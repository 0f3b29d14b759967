"""A bucket that pods and this process reach: the emulator in a pod of its own.

The image of the tests has the emulator's program; this module is what the pod runs.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.gcs.emulator import binary

if TYPE_CHECKING:
    from collections.abc import Iterator

_NAME, _PORT = "bucket", 4443


@dataclass(frozen=True, slots=True)
class FarBucket:
    """Where the bucket is.

    Attributes
    ----------
    url : str
        A store in it.
    port : int
        Of this machine, which leads to the emulator.
    environment : dict
        Tells pods what ``gs://`` means.
    """

    url: str
    port: int
    environment: dict[str, str]


def manifests(image: str) -> list[dict[str, Any]]:
    """Return the pod, and the service by which it is found."""
    labels = {"app": _NAME}
    container = {
        "name": _NAME,
        "image": image,
        "args": ["python", "-m", "tests.kubernetes.bucket"],
        "ports": [{"containerPort": _PORT}],
        "readinessProbe": {
            "httpGet": {"port": _PORT, "path": "/_internal/healthcheck"},
            "periodSeconds": 1,
        },
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}},
    }
    metadata = {"name": _NAME, "labels": labels}
    pod = {"containers": [container], "terminationGracePeriodSeconds": 1}
    service = {"selector": labels, "ports": [{"port": _PORT}]}
    return [
        {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod},
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": service},
    ]


@contextlib.contextmanager
def far_bucket(image: str, namespace: str) -> Iterator[FarBucket]:
    """Run the emulator in a namespace; ``gs://`` means it here too, meanwhile."""
    from dask_hpsearch.clusters.kubernetes.port_forward import PortForward
    from tests.gcs.held import new_bucket
    from tests.kubernetes.conftest import asked
    from tests.processes import wait_until

    for one in manifests(image):
        asked(lambda api, one=one: api.create(one), namespace)
    wait_until(lambda: asked(_is_ready, namespace))
    forward = PortForward(_NAME, [_PORT], {"namespace": namespace}).start()
    before = os.environ.get("STORAGE_EMULATOR_HOST")
    port = forward.port(_PORT)
    os.environ["STORAGE_EMULATOR_HOST"] = f"http://127.0.0.1:{port}"
    try:
        yield FarBucket(
            url=f"gs://{new_bucket(port)}/searches",
            port=port,
            environment={
                "STORAGE_EMULATOR_HOST": f"http://{_NAME}.{namespace}:{_PORT}",
                # Against an emulator gcsfs would try gRPC for 100 seconds first.
                "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
            },
        )
    finally:
        forward.close()
        if before is None:
            del os.environ["STORAGE_EMULATOR_HOST"]
        else:
            os.environ["STORAGE_EMULATOR_HOST"] = before


async def _is_ready(api: Any) -> bool:
    pod = await api.get("Pod", _NAME)
    conditions = pod["status"].get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


if __name__ == "__main__":
    address = ["-scheme", "http", "-host", "0.0.0.0", "-port", str(_PORT)]  # noqa: S104
    command = [str(binary()), "-backend", "memory", *address, "-log-level", "error"]
    os.execv(command[0], command)  # noqa: S606
