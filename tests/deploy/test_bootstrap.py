"""A reaper that starts, but cannot work, ends in an error that says which kind it is."""

from __future__ import annotations

import asyncio
from typing import Any, Self

import pytest

from dask_hpsearch.deploy.bootstrap import start_reaper
from dask_hpsearch.exceptions import MissingBindingsError, PodStartError
from tests.gcp.specs import spec

REFUSED = "cannot check projects/p: not allowed to look up projects/p: 403"


class OnePod:
    """Kubernetes, as far as the reaper goes: its pod runs, and is never ready.

    Parameters
    ----------
    log : str
        What the pod has printed.
    """

    def __init__(self, log: str) -> None:
        self._log = log
        self.applied: list[dict[str, Any]] = []

    def in_namespace(self, name: str) -> Self:
        """Return the API of a namespace."""
        del name
        return self

    async def apply(self, manifest: dict[str, Any]) -> None:
        """Create something."""
        self.applied.append(manifest)

    async def get(self, kind: str, name: str) -> dict[str, Any] | None:
        """Return nothing: no deployment is complete."""
        del kind, name

    async def list(self, kind: str, labels: str) -> list[dict[str, Any]]:
        """Return the pod."""
        del kind, labels
        return [{"metadata": {"name": "reaper-1"}, "status": {"phase": "Running"}}]

    async def logs(self, name: str, *, lines: int, previous: bool) -> str:
        """Return the pod's log."""
        del name, lines, previous
        return self._log


def start(api: Any) -> None:
    """Start the reaper, and give it no time."""
    asyncio.run(start_reaper(api, spec(), "image:1", timeout=60, checked_within=0.0))


def test_a_reaper_that_google_refuses_lacks_bindings() -> None:
    """The error is one for which nothing is deleted; it has the commands."""
    with pytest.raises(MissingBindingsError, match="gcloud iam roles create") as raised:
        start(OnePod(REFUSED))

    assert "dask-hpsearch down" in str(raised.value)


@pytest.mark.parametrize("log", ["", "cannot check projects/p: no route to host"])
def test_any_other_failure_is_one_of_the_pod(log: str) -> None:
    """What was created for it is removed, as before."""
    with pytest.raises(PodStartError, match="has not checked"):
        start(OnePod(log))


def test_the_reapers_account_is_named_for_its_cluster() -> None:
    """IAM cannot tell accounts of one name in two clusters apart."""
    api = OnePod(REFUSED)
    with pytest.raises(MissingBindingsError):
        start(api)

    made = {one["kind"]: one for one in api.applied}
    name = made["ServiceAccount"]["metadata"]["name"]
    assert name == "reaper-searches-europe-west4-a"
    pod = made["Deployment"]["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == name
