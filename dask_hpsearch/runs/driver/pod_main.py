"""The program of a driver on Kubernetes: ``python -m dask_hpsearch.runs.driver.pod_main REQUEST``.

It ends with exit code 0 when there is nothing more to do for the run, however it ended;
otherwise Kubernetes starts it again, and the run goes on from its journal. When the cluster's
scheduler is lost it waits for the next one, and goes on by itself.
"""

from __future__ import annotations

import json
import logging
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from distributed import Client

from dask_hpsearch.clusters import tls
from dask_hpsearch.clusters.kubernetes.driver_job import why_given_up
from dask_hpsearch.engine.cluster_features import as_features
from dask_hpsearch.exceptions import (
    ClientClosedError,
    ClusterError,
    ClusterUnreachableError,
    PodStartError,
    RunFailedError,
)
from dask_hpsearch.journal.folder import RunFolder
from dask_hpsearch.journal.main_names import stand_in_for_main
from dask_hpsearch.journal.segments import JournalReader
from dask_hpsearch.runs import views
from dask_hpsearch.runs.driver.retry import DriverLoop, PodEnds, let_go
from dask_hpsearch.runs.launch.kubernetes_job import HEARTBEAT_TIMEOUT_S
from dask_hpsearch.runs.launch.module_archive import take_modules
from dask_hpsearch.runs.logs import StoredPodLogs
from dask_hpsearch.security.signing import SigningKey
from dask_hpsearch.stores import open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager, ExitStack
    from types import FrameType

    from dask_hpsearch.clusters.kubernetes.driver_job import DriverEnd

_START_AGAIN, _TOLD_TO_END = 1, 143
_SCHEDULER_WAIT_S = 60.0
_LOOK_AGAIN_S = 0.5
# Closing a client that looks for a lost scheduler takes as long as this.
_CLIENT_TIMEOUT_S = 10.0
_logger = logging.getLogger(__name__)


class Place(Protocol):
    """Where the driver is, as `clusters.inside.DriverPlace`."""

    def logs(
        self,
        run_id: str,
        take: Callable[[str, str, str], None],
        since: Mapping[str, str],
    ) -> AbstractContextManager[Any]:
        """Follow the logs of the cluster's pods."""

    def has_cluster(self) -> bool:
        """Whether the cluster is there."""

    def scale(self, n: int) -> None:
        """Change how many workers the cluster is to have."""

    def end(self) -> None:
        """End what the run needs no more."""


def main() -> int:
    """Drive as a pod's program."""
    from dask_hpsearch.clusters.kubernetes.driver_pod import DriverPlace

    request = json.loads(sys.argv[1])
    return run_program(request, DriverPlace(**request["place"]))


def run_program(request: dict[str, Any], place: Place) -> int:
    """Drive until the run is over, or the pod is told to end; return the exit code.

    Parameters
    ----------
    request : dict
        As `runs.jobs` and `clusters.driver_job` make it.
    place : Place
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    for noisy in ("distributed", "bokeh", "tornado", "httpx", "kr8s"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # As process 1 it would not end by itself.
    signal.signal(signal.SIGTERM, _told_to_end)
    try:
        _work(request, place)
        place.end()
    except PodEnds:
        _logger.warning("the pod is told to end: another one goes on with the run")
        return _TOLD_TO_END
    except ClusterError as error:
        _logger.error("not all is cleared up: %s", error)  # noqa: TRY400 (a message is enough)
        return _START_AGAIN
    except Exception:
        _logger.exception("the run does not know how this ended: it goes on")
        return _START_AGAIN
    return 0


def _told_to_end(_number: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough
    raise PodEnds


def _work(request: dict[str, Any], place: Place) -> None:
    """Drive a run, and keep what the cluster's pods write."""
    key_file = Path(request["signing_key"])
    key = SigningKey.from_pem(key_file.read_bytes(), key_file)
    folder = RunFolder.open(open_store(request["run"]), maker=request["maker"], key=key)
    scratch = Path(request["scratch"])
    with (
        StoredPodLogs(folder.store) as kept,
        place.logs(folder.run_id, kept.take, kept.book.moments()),
    ):
        take_modules(folder, request["modules"], scratch / "modules")
        driver = DriverLoop(
            folder,
            request,
            connect=lambda stack: _connected(request, place, stack),
            has_cluster=place.has_cluster,
            heartbeat_timeout_s=HEARTBEAT_TIMEOUT_S,
            cluster=place,
            before_end=kept.write,
        )
        hopeless = _why_hopeless(folder, place)
        if hopeless is None:
            driver.drive_to_the_end()
        else:
            driver.give_up(hopeless)
        _logger.info("the run is over")
        sys.stdout.flush()


def _why_hopeless(folder: RunFolder, place: Place) -> RunFailedError | None:
    """Tell how earlier pods of this driver ended; return why another is of no use."""
    ask = getattr(place, "earlier_ends", None)  # not all places have pods
    ends: Sequence[DriverEnd] = () if ask is None else ask()
    for end in ends:
        _logger.warning("an earlier pod of this driver has ended: %s", end.message)
    events = JournalReader(folder.store, folder.run_id, folder.manifest.public).events()
    used = max((int(one.get("m", 0)) for one in events), default=0)
    seen = views.progress(events, refit=None, ended=False)
    refitting = 0 < seen.fits_total == seen.fits_done
    doing = "in the refit of the best candidate" if refitting else "during the search"
    text = why_given_up(ends, used=used, doing=doing)
    return None if text is None else RunFailedError(text)


def _connected(request: dict[str, Any], place: Place, stack: ExitStack) -> Client:
    """Connect to the scheduler once it is there, and ours.

    Raises
    ------
    ClusterUnreachableError, ClusterAccessError, ClientClosedError
    """
    address = request["address"]
    security = tls.client_security(Path(request["certificates"]))
    until = time.monotonic() + _SCHEDULER_WAIT_S
    while True:
        try:
            tls.check_scheduler(address, security)
            break
        except ClusterUnreachableError:
            if time.monotonic() > until or not place.has_cluster():
                _check_scheduler_pod(place)
                raise
            time.sleep(_LOOK_AGAIN_S)
    try:
        client = Client(
            address, security=security, set_as_default=False, timeout=_CLIENT_TIMEOUT_S
        )
    except OSError as error:
        msg = f"the Dask scheduler at {address} does not answer: {error}"
        raise ClientClosedError(msg) from error
    stack.callback(let_go, client)
    return client


def _check_scheduler_pod(place: Place) -> None:
    """Say of a scheduler that does not come again why that is, if it does not pass.

    Raises
    ------
    PodStartError
    """
    for one in as_features(place).problems():
        if one.part == "scheduler" and one.outlook in ("late", "stuck"):
            msg = f"the scheduler does not start: {one.message}"
            raise PodStartError(msg, lasts=True)


if __name__ == "__main__":
    stand_in_for_main()
    sys.exit(main())
