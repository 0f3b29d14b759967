"""The program of a driver: ``python -m dask_hpsearch.runs.driver.local_main REQUEST``."""

from __future__ import annotations

import json
import logging
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from dask_hpsearch.exceptions import (
    ClusterNotFoundError,
    HPSearchError,
    RunCancelledError,
    StoreError,
)
from dask_hpsearch.journal.folder import RunFolder
from dask_hpsearch.journal.main_names import stand_in_for_main
from dask_hpsearch.runs.driver.loop import DriverLoop
from dask_hpsearch.runs.driver.request import DriverRequest
from dask_hpsearch.runs.driver.retry import Retry
from dask_hpsearch.runs.driver.setup import (
    close_client,
    configure_logging,
    connect_client,
    storing_pod_logs,
)
from dask_hpsearch.runs.launch.local_process import ClientAccess
from dask_hpsearch.runs.logs import store_driver_logs, write_last_error
from dask_hpsearch.stores import open_store

if TYPE_CHECKING:
    from contextlib import ExitStack

    from distributed import Client

_logger = logging.getLogger(__name__)


def main() -> int:
    """Drive a run to its end; return the exit code."""
    configure_logging()
    request = DriverRequest.from_json(json.loads(sys.argv[1]))
    try:
        drive(request)
    except RunCancelledError:
        _logger.info("the run was cancelled")
    except HPSearchError as error:
        _logger.error("the run ended: %s", error)  # noqa: TRY400 (a message is enough)
        if isinstance(error, StoreError):  # its folder cannot have the error
            write_last_error(request.run_id, f"{type(error).__name__}: {error}")
        return 1
    except Exception:
        _logger.exception("the run ended")
        return 1
    finally:
        with suppress(StoreError):
            store_driver_logs(open_store(request.run), request.run_id)
    return 0


def drive(request: DriverRequest) -> None:
    """Drive a run to its end.

    Raises
    ------
    HPSearchError
        If an error ended it.
    """
    folder = RunFolder.open(open_store(request.run))
    access = None if request.client is None else ClientAccess.take(request.client)
    if access is not None and access.attach_options is not None:
        _drive_on_kubernetes(folder, request, access.attach_options)
        return

    def connect(stack: ExitStack) -> Client | None:
        if access is None:
            return None
        return connect_client(access.address, access.security, stack)

    DriverLoop(folder=folder, request=request, connect=connect).run()


def _drive_on_kubernetes(
    folder: RunFolder, request: DriverRequest, attach_options: dict[str, Any]
) -> None:
    """Drive on a cluster that is attached by its name, also after its scheduler is lost."""
    from dask_hpsearch.clusters.kubernetes.cluster import kube_cluster
    from dask_hpsearch.clusters.kubernetes.pod_logs import PodLogs

    def connect(stack: ExitStack) -> Client:
        cluster = stack.enter_context(kube_cluster(**attach_options))
        client: Client = cluster.get_client()
        stack.callback(close_client, client)
        return client

    def follow(run_id: str, add_line: Any, since: Any) -> PodLogs:
        access = {key: value for key, value in attach_options.items() if key != "name"}
        return PodLogs(attach_options["name"], run_id, access, add_line, since=since)

    with storing_pod_logs(folder, follow) as write_logs:
        loop = DriverLoop(
            folder=folder,
            request=request,
            connect=connect,
            retry=Retry(has_cluster=lambda: True),
            before_end=write_logs,
        )
        error = loop.run()
    if not request.keep_cluster:
        with suppress(ClusterNotFoundError):
            kube_cluster(**attach_options).end()
    if error is not None:
        raise error


if __name__ == "__main__":
    stand_in_for_main()
    status = main()
    # Everything is closed: the interpreter's own shutdown would take a sixth of the time
    # that the imports took.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
