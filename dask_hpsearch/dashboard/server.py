"""The server of the dashboard: starts, prints its address, and serves until it is ended."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application

from dask_hpsearch.dashboard.access import Secrets, check_loopback
from dask_hpsearch.dashboard.handlers import ROUTES, Nothing
from dask_hpsearch.dashboard.known_runs import KnownRuns
from dask_hpsearch.exceptions import RunNotFoundError
from dask_hpsearch.journal.folder import RUNS
from dask_hpsearch.runs import SearchRun
from dask_hpsearch.runs.stores import default_store
from dask_hpsearch.stores import open_store

if TYPE_CHECKING:
    from typing import Self

_MOST_BODY_NBYTES = 65536


def known_runs(target: str | None) -> KnownRuns:
    """Return the runs to show.

    Parameters
    ----------
    target : str or None
        URL or folder of a store or of a run; None: the user's own store on this machine.
    """
    if target is None:
        return KnownRuns(default_store().url)
    if f"/{RUNS}/" in target:
        return KnownRuns(None, [SearchRun.attach(target)])
    try:
        return KnownRuns(None, [SearchRun.attach(target)])
    except RunNotFoundError:
        return KnownRuns(open_store(target).url)


class DashboardServer:
    """A server on loopback; it serves within ``async with``.

    Parameters
    ----------
    known : KnownRuns
    port : int
        0: a free one.
    address : str
        Of loopback.

    Attributes
    ----------
    port : int
    secrets : Secrets
    url : str
        With the token.

    Raises
    ------
    ValueError
        If other machines could reach the address.
    OSError
        If the port is in use.
    """

    def __init__(
        self, known: KnownRuns, *, port: int = 0, address: str = "127.0.0.1"
    ) -> None:
        host = check_loopback(address)
        self._known = known
        self._sockets = bind_sockets(port, host)
        self.port = int(self._sockets[0].getsockname()[1])
        self.secrets = Secrets()
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self.port}/?token={self.secrets.token}"
        self._server: HTTPServer | None = None

    async def __aenter__(self) -> Self:
        more: dict[str, Any] = {
            "secrets": self.secrets,
            "port": self.port,
            "known": self._known,
            "tables": {},
        }
        application = Application(
            [(path, handler, more) for path, handler in ROUTES],
            default_handler_class=Nothing,
            default_handler_args=more,
            log_function=_log,
        )
        self._server = HTTPServer(application, max_body_size=_MOST_BODY_NBYTES)
        self._server.add_sockets(self._sockets)
        return self

    async def __aexit__(self, *error: object) -> None:
        if self._server is not None:
            self._server.stop()
            await self._server.close_all_connections()
        self._known.close()


def _log(handler: Any) -> None:
    """Log the path of a request, without the token."""
    status = handler.get_status()
    level = logging.DEBUG if status < 500 else logging.WARNING  # noqa: PLR2004 (HTTP's)
    _logger.log(level, "%d %s %s", status, handler.request.method, handler.request.path)


_logger = logging.getLogger(__name__)
