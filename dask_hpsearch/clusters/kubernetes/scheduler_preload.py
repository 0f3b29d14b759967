"""Preload of a scheduler in a pod: slots plugin, dashboard, the exit of the tunnel.

Dashboard and tunnel listen on the pod's loopback: they are reached by port forwarding only,
not from other pods. The tunnel connects to Dask's port; its clients use TLS.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import dask.config
from distributed.protocol.pickle import dumps
from tornado.httpserver import HTTPServer

from dask_hpsearch.clusters.kubernetes.manifests import (
    COMM_PORT,
    DASHBOARD_PORT,
    TUNNEL_PORT,
)
from dask_hpsearch.clusters.kubernetes.scheduler_routes import GoneWorkers
from dask_hpsearch.clusters.kubernetes.tunnel import TunnelExit
from dask_hpsearch.data.node_reader import DataReader
from dask_hpsearch.slots.plugin import SlotsPlugin

if TYPE_CHECKING:
    from distributed import Scheduler

_LOOPBACK = "127.0.0.1"
_TUNNEL = "dask-hpsearch-tunnel"
_DASHBOARD = "dask-hpsearch-dashboard"
_logger = logging.getLogger(__name__)


async def dask_setup(scheduler: Scheduler) -> None:
    """Prepare a scheduler; Dask calls this when it starts."""
    await scheduler.register_worker_plugin(
        comm=None,
        plugin=dumps(SlotsPlugin(DataReader(), scheduler=str(scheduler.id))),
        name=SlotsPlugin.name,
        idempotent=True,
    )
    scheduler.add_plugin(GoneWorkers())
    scheduler.extensions[_TUNNEL] = await TunnelExit(COMM_PORT).start(TUNNEL_PORT)
    try:
        scheduler.extensions[_DASHBOARD] = serve_dashboard(scheduler, DASHBOARD_PORT)
    except ImportError as error:
        _logger.info("no dashboard: %s", error)


async def dask_teardown(scheduler: Scheduler) -> None:
    """Stop what `dask_setup` has started."""
    tunnel = scheduler.extensions.pop(_TUNNEL, None)
    if tunnel is not None:
        await tunnel.close()
    server = scheduler.extensions.pop(_DASHBOARD, None)
    if server is not None:
        server.stop()


def serve_dashboard(scheduler: Scheduler, port: int) -> Any:
    """Serve Dask's dashboard on this machine's loopback.

    Raises
    ------
    ImportError
        If bokeh is not installed.
    """
    from distributed.dashboard.scheduler import connect
    from distributed.http.routing import RoutingApplication
    from distributed.http.utils import get_handlers

    modules = dask.config.get("distributed.scheduler.dashboard-routes", None) or [
        "distributed.http.scheduler.info",
        "distributed.http.scheduler.json",
        "distributed.http.health",
        "distributed.http.statics",
    ]
    application = RoutingApplication(
        get_handlers(scheduler, modules=modules, prefix="")
    )
    server = HTTPServer(application)
    connect(application, server, scheduler, prefix="")
    server.listen(port, _LOOPBACK)
    return server
