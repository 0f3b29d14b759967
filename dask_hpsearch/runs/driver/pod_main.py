"""The program of a driver on Kubernetes: ``python -m dask_hpsearch.runs.driver.pod_main REQUEST``.

It exits with code 0 when nothing is left to do for the run, however the run ended. After any
other code Kubernetes starts another pod, which continues the run from its journal. A driver
that loses the cluster's scheduler waits for the next one in the same pod.
"""

from __future__ import annotations

import json
import logging
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from dask_hpsearch.clusters import tls
from dask_hpsearch.clusters.kubernetes.driver_job import why_given_up
from dask_hpsearch.engine.cluster_features import as_features
from dask_hpsearch.exceptions import (
    ClusterError,
    ClusterUnreachableError,
    PodStartError,
    RunFailedError,
)
from dask_hpsearch.journal.events import HeartbeatEvent
from dask_hpsearch.journal.folder import RunFolder
from dask_hpsearch.journal.main_names import stand_in_for_main
from dask_hpsearch.journal.segments import JournalReader
from dask_hpsearch.runs import views
from dask_hpsearch.runs.driver.loop import DriverLoop
from dask_hpsearch.runs.driver.request import DriverRequest
from dask_hpsearch.runs.driver.retry import PodTerminated, Retry
from dask_hpsearch.runs.driver.setup import (
    configure_logging,
    connect_client,
    storing_pod_logs,
)
from dask_hpsearch.runs.launch.kubernetes_job import HEARTBEAT_TIMEOUT_S
from dask_hpsearch.runs.launch.module_archive import load_modules
from dask_hpsearch.security.signing import SigningKey
from dask_hpsearch.stores import open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager, ExitStack
    from types import FrameType

    from distributed import Client

    from dask_hpsearch.clusters.kubernetes.driver_job import DriverEnd, PodEnvironment

_EXIT_RETRY, _EXIT_SIGTERM = 1, 143
_SCHEDULER_TIMEOUT_S = 60.0
_POLL_S = 0.5
# Closing a client that looks for a lost scheduler takes as long as this.
_CLIENT_TIMEOUT_S = 10.0
_logger = logging.getLogger(__name__)


class Pod(Protocol):
    """The driver's access to Kubernetes, as `driver_pod.DriverPod`."""

    def logs(
        self,
        run_id: str,
        add_line: Callable[[str, str, str], None],
        since: Mapping[str, str],
    ) -> AbstractContextManager[Any]:
        """Follow the logs of the cluster's pods."""

    def has_cluster(self) -> bool:
        """Whether the cluster exists."""

    def scale(self, n: int) -> None:
        """Change the cluster's number of workers."""

    def end(self) -> None:
        """Delete the Job, and the cluster if the run was its last."""


def main() -> int:
    """Drive a run as the program of a pod; return the exit code."""
    from dask_hpsearch.clusters.kubernetes.driver_pod import DriverPod

    request = DriverRequest.from_json(json.loads(sys.argv[1]))
    pod = _environment(request)
    return run_program(request, DriverPod(pod.cluster, pod.namespace, pod.job))


def run_program(request: DriverRequest, pod: Pod) -> int:
    """Drive until the run has ended or the pod is terminated; return the exit code."""
    configure_logging()
    # Process 1 of a container ignores the signal unless it has a handler.
    signal.signal(signal.SIGTERM, _terminate)
    try:
        _drive(request, pod)
        pod.end()
    except PodTerminated:
        _logger.warning("the pod is terminated: another one continues the run")
        return _EXIT_SIGTERM
    except ClusterError as error:
        _logger.error("cleaning up failed, another pod retries: %s", error)  # noqa: TRY400 (a message is enough)
        return _EXIT_RETRY
    except Exception:
        _logger.exception("the journal lacks this error: another pod continues the run")
        return _EXIT_RETRY
    return 0


def _terminate(_number: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough
    raise PodTerminated


def _drive(request: DriverRequest, pod: Pod) -> None:
    """Drive a run, and store the logs of the cluster's pods."""
    environment = _environment(request)
    key_file = Path(environment.signing_key)
    key = SigningKey.from_pem(key_file.read_bytes(), key_file)
    folder = RunFolder.open(open_store(request.run), maker=request.maker, key=key)
    with storing_pod_logs(folder, pod.logs) as write_logs:
        modules = Path(environment.scratch) / "modules"
        load_modules(folder, request.modules, modules)
        loop = DriverLoop(
            folder=folder,
            request=request,
            connect=lambda stack: _connect(environment, pod, stack),
            retry=Retry(pod.has_cluster),
            heartbeat_timeout_s=HEARTBEAT_TIMEOUT_S,
            cluster=pod,
            before_end=write_logs,
        )
        error = _why_hopeless(folder, pod)
        if error is None:
            loop.run()
        else:
            loop.give_up(error)
        _logger.info("the run has ended")
        sys.stdout.flush()


def _environment(request: DriverRequest) -> PodEnvironment:
    """Return the pod's environment, which the request of a Job has.

    Raises
    ------
    ValueError
        If the request is that of a driver elsewhere.
    """
    if request.environment is None:
        msg = f"the driver {request.driver} was not started in a pod: use local_main"
        raise ValueError(msg)
    return request.environment


def _why_hopeless(folder: RunFolder, pod: Pod) -> RunFailedError | None:
    """Log how earlier pods of this driver ended; return why another one cannot help."""
    earlier_ends = getattr(pod, "earlier_ends", None)  # tests have no pods
    ends: Sequence[DriverEnd] = () if earlier_ends is None else earlier_ends()
    for end in ends:
        _logger.warning("an earlier pod of this driver has ended: %s", end.message)
    journal = JournalReader(folder.store, folder.run_id, folder.manifest.public).read()
    notes = journal.notes()
    peaks = (one.peak_nbytes for one in notes if isinstance(one, HeartbeatEvent))
    used = max(peaks, default=0)
    progress = views.RunProgress(refit=None)
    progress.update(journal.objects)
    seen = progress.snapshot(ended=False)
    refitting = 0 < seen.fits_total == seen.fits_done
    doing = "in the refit of the best candidate" if refitting else "during the search"
    text = why_given_up(ends, used=used, doing=doing)
    return None if text is None else RunFailedError(text)


def _connect(environment: PodEnvironment, pod: Pod, stack: ExitStack) -> Client:
    """Connect to the scheduler once it answers with the cluster's certificate.

    Raises
    ------
    ClusterUnreachableError, ClusterAccessError, ClientClosedError
    """
    address = environment.address
    security = tls.client_security(Path(environment.certificates))
    deadline = time.monotonic() + _SCHEDULER_TIMEOUT_S
    for timeout in tls.response_timeouts():
        try:
            tls.check_scheduler(address, security, timeout=timeout)
            break
        except ClusterUnreachableError:
            if time.monotonic() > deadline or not pod.has_cluster():
                _check_scheduler_pod(pod)
                raise
            time.sleep(_POLL_S)
    return connect_client(address, security, stack, timeout=_CLIENT_TIMEOUT_S)


def _check_scheduler_pod(pod: Pod) -> None:
    """Raise the problem of a scheduler that will not start by itself, if it has one.

    Raises
    ------
    PodStartError
    """
    for problem in as_features(pod).problems():
        if problem.part == "scheduler" and problem.outlook in ("late", "stuck"):
            msg = f"the scheduler does not start: {problem.message}"
            raise PodStartError(msg, lasts=True)


if __name__ == "__main__":
    stand_in_for_main()
    sys.exit(main())
