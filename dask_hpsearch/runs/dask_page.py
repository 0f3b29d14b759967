"""The page ``/hpsearch`` on Dask's own dashboard, for clusters of this process.

It shows the runs that this process drives on the cluster, or has submitted to it. It changes
nothing: Dask's dashboard has no password, so the page offers no actions.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from dask_hpsearch.exceptions import HPSearchError
from dask_hpsearch.live import html
from dask_hpsearch.live.widget import payload_of
from dask_hpsearch.runs.live import LiveRun

if TYPE_CHECKING:
    from collections.abc import Sequence

    from distributed import Client

    from dask_hpsearch.runs.run import SearchRun

_logger = logging.getLogger(__name__)
_MOST_RUNS = 5
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'"
)
# Paths are relative: the dashboard may be behind a proxy.
_PAGE = """<!doctype html><html lang="en" class="dhps-auto"><head><meta charset="utf-8">
<title>Searches on this cluster</title><link rel="icon" href="data:,">
<link rel="stylesheet" href="hpsearch/live.css">
<script type="module" src="hpsearch/page.js"></script></head>
<body><main></main><p>Searches on this cluster, newest first; <a href="status">back to Dask's
dashboard</a>.</p></body></html>
"""
_FILES = {
    "live.js": "text/javascript",
    "live.css": "text/css",
    "page.js": "text/javascript",
}


class _Runs:
    """The last runs of one cluster."""

    def __init__(self) -> None:
        self._runs: dict[str, LiveRun] = {}

    def add(self, run: SearchRun) -> None:
        """Show a run, in place of the oldest if there are many."""
        self._runs.pop(run.run_id, None)
        self._runs[run.run_id] = LiveRun(run)
        for run_id in list(self._runs)[:-_MOST_RUNS]:
            del self._runs[run_id]

    def payloads(self) -> Sequence[dict[str, Any]]:
        """Return the states, newest first; without runs that cannot be read."""
        found = []
        for run_id, live in reversed(list(self._runs.items())):
            try:
                payload = payload_of(live.refresh(), actions=[])
            except (HPSearchError, OSError) as error:
                _logger.debug("could not read run %s: %s", run_id, error)
                continue
            found.append({"id": run_id} | payload)
        return found


_pages: WeakKeyDictionary[Any, _Runs] = WeakKeyDictionary()


def show_on_dask(client: Client | None, run: SearchRun) -> None:
    """Show a run on the dashboard of the client's cluster, if that is in this process."""
    scheduler = getattr(getattr(client, "cluster", None), "scheduler", None)
    application = getattr(scheduler, "http_application", None)
    if application is None:
        return
    try:
        runs = _pages.get(application)
        if runs is None:
            runs = _pages[application] = _Runs()
            application.add_application(_application(runs))
        runs.add(run)
    except Exception:
        # A page that is missing must not end a search.
        _logger.debug("no page on Dask's dashboard", exc_info=True)


def _application(runs: _Runs) -> Any:
    from tornado.ioloop import IOLoop
    from tornado.web import Application, HTTPError, RequestHandler

    class Handler(RequestHandler):
        """Serves the page, its files and the states."""

        def set_default_headers(self) -> None:
            self.set_header("Content-Security-Policy", _POLICY)
            self.set_header("X-Content-Type-Options", "nosniff")
            self.set_header("Cache-Control", "no-store")

    class Page(Handler):
        def get(self) -> None:
            self.finish(_PAGE)

    class State(Handler):
        async def get(self) -> None:
            # The scheduler's loop stays free.
            loop = IOLoop.current()
            self.finish({"runs": await loop.run_in_executor(None, runs.payloads)})

    class File(Handler):
        def get(self, name: str) -> None:
            if name not in _FILES:
                raise HTTPError(404)
            self.set_header("Content-Type", f"{_FILES[name]}; charset=utf-8")
            self.finish((html.FILES / name).read_bytes())

    return Application(
        [
            (r"/hpsearch/?", Page),
            (r"/hpsearch/state", State),
            (r"/hpsearch/([a-z.]+)", File),
        ]
    )
