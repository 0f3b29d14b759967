"""The pages of the dashboard, and the values that they ask for."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tornado.ioloop import IOLoop
from tornado.web import HTTPError

from dask_hpsearch.dashboard.access import GuardedHandler
from dask_hpsearch.dashboard.trials_table import Query, TrialsTable
from dask_hpsearch.exceptions import HPSearchError
from dask_hpsearch.live import html
from dask_hpsearch.live.slices import slice_charts
from dask_hpsearch.live.widget import payload_of
from dask_hpsearch.runs.notebook_view import cancel, stop

if TYPE_CHECKING:
    from collections.abc import Callable

    from dask_hpsearch.dashboard.known_runs import KnownRun, KnownRuns
    from dask_hpsearch.live.state import LiveState
    from dask_hpsearch.runs.live import LiveRun

_OWN = Path(__file__).parent / "static"
_FILES = {
    "live.js": (html.FILES, "text/javascript"),
    "live.css": (html.FILES, "text/css"),
    "dashboard.js": (_OWN, "text/javascript"),
    "dashboard.css": (_OWN, "text/css"),
}
_LONGEST_LOG = 200_000
_ACTIONS = {"stop": stop, "cancel": cancel}


class _Handler(GuardedHandler):
    known: KnownRuns
    tables: dict[str, TrialsTable]

    async def in_thread(self, function: Callable[[], Any]) -> Any:
        """Call what reads a store, and leave the server free meanwhile."""
        try:
            return await IOLoop.current().run_in_executor(None, function)
        except HPSearchError as error:
            raise HTTPError(503, "%s", str(error), reason="Unavailable") from error

    async def run_of(self, run_id: str) -> KnownRun:
        """Return a run by its id."""
        found: KnownRun | None = await self.in_thread(lambda: self.known.get(run_id))
        if found is None:
            raise HTTPError(404, "no run %r in this store", run_id)
        return found

    def page(self, kind: str, title: str, content: str, **data: str) -> None:
        """Write a page; its script fills it."""
        attributes = "".join(
            f' data-{name}="{escape(value)}"' for name, value in data.items()
        )
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.finish(
            '<!doctype html><html lang="en" class="dhps-auto"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{escape(title)}</title>"
            '<link rel="icon" href="data:,">'
            '<link rel="stylesheet" href="/static/live.css">'
            '<link rel="stylesheet" href="/static/dashboard.css">'
            '<script type="module" src="/static/dashboard.js"></script></head>'
            f'<body data-page="{kind}" data-token="{self.secrets.action}"{attributes}>'
            f"{content}</body></html>"
        )


class Entry(_Handler):
    """Takes the token of the URL, and gives a cookie for it."""

    def may_enter(self) -> bool:
        """Whether the URL has the token."""
        return self.has_token()

    async def get(self) -> None:
        """Show the list of runs, or the one run."""
        if self.has_token():
            self.set_cookie(
                self.cookie_name,
                self.secrets.session,
                httponly=True,
                samesite="Strict",
                path="/",
            )
            # A redirect would not bring the cookie if a link on another site led here.
            self.set_header("Content-Type", "text/html; charset=utf-8")
            self.finish(
                '<!doctype html><meta http-equiv="refresh" content="0; url=/">'
                '<link rel="icon" href="data:,">'
                "<title>dask-hpsearch</title>"
            )
            return
        only = self.known.only_run()
        if only is not None:
            self.redirect(f"/runs/{only}")
            return
        self.page("runs", "Searches", _RUNS, store=self.known.store or "")


class RunPage(_Handler):
    """The page of one run."""

    async def get(self, run_id: str) -> None:
        """Show it."""
        known = await self.run_of(run_id)
        title = known.run.task_name or run_id
        back = (
            "" if self.known.only_run() else '<a class="back" href="/">All searches</a>'
        )
        self.page("run", title, f"{back}{_RUN}", run=run_id)


class RunRows(_Handler):
    """The list of runs."""

    async def get(self) -> None:
        """Return it as JSON."""
        self.finish({"runs": await self.in_thread(self.known.rows)})


class RunState(_Handler):
    """The live state of a run."""

    async def get(self, run_id: str) -> None:
        """Return it as JSON."""
        known = await self.run_of(run_id)

        def read(live: LiveRun, state: LiveState) -> dict[str, Any]:
            actions = [one for one in ("stop", "cancel") if one in state.actions]
            charts = [
                {"name": name, "svg": svg} for name, svg in slice_charts(live.progress)
            ]
            facts = state.to_json()
            return payload_of(state, actions=actions) | {
                "slices": charts,
                "facts": facts,
            }

        self.finish(await self.in_thread(lambda: known.look(read)))


class RunTrials(_Handler):
    """A page of a run's candidates."""

    async def get(self, run_id: str) -> None:
        """Return it as JSON."""
        known = await self.run_of(run_id)
        arguments = {name: self.get_argument(name) for name in self.request.arguments}
        try:
            query = Query.of(arguments)
        except ValueError as error:
            raise HTTPError(400, "%s", str(error)) from error
        table = self.tables.setdefault(run_id, TrialsTable())
        read = lambda live, _: table.page(live.progress, query)  # noqa: E731
        self.finish(await self.in_thread(lambda: known.look(read)))


class RunLogs(_Handler):
    """The logs of a run."""

    async def get(self, run_id: str) -> None:
        """Return their end as text."""
        known = await self.run_of(run_id)
        text: str = await self.in_thread(known.run.logs)
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(text[-_LONGEST_LOG:])


class RunAction(_Handler):
    """Stops or cancels a run."""

    async def post(self, run_id: str, action: str) -> None:
        """Ask its driver."""
        known = await self.run_of(run_id)
        said = await self.in_thread(lambda: _ACTIONS[action](known.run))
        self.finish({"said": said})


class StaticFile(_Handler):
    """A script or stylesheet of the pages."""

    async def get(self, name: str) -> None:
        """Return it."""
        if name not in _FILES:
            raise HTTPError(404)
        folder, kind = _FILES[name]
        self.set_header("Content-Type", f"{kind}; charset=utf-8")
        self.finish((folder / name).read_bytes())


class Nothing(_Handler):
    """Every other path."""

    def prepare(self) -> None:
        """Refuse others first."""
        super().prepare()
        raise HTTPError(404)


_RUN_ID = r"(\d{8}-\d{6}-[0-9a-f]{8})"
ROUTES = [
    (r"/", Entry),
    (rf"/runs/{_RUN_ID}", RunPage),
    (r"/api/runs", RunRows),
    (rf"/api/runs/{_RUN_ID}", RunState),
    (rf"/api/runs/{_RUN_ID}/trials", RunTrials),
    (rf"/api/runs/{_RUN_ID}/logs", RunLogs),
    (rf"/api/runs/{_RUN_ID}/(stop|cancel)", RunAction),
    (r"/static/([a-z.]+)", StaticFile),
]

_RUNS = """
<main class="dhps wide">
<header><h1>Searches</h1><span class="store"></span>
<label>Find <input type="search" class="find" placeholder="name, state, class"></label></header>
<table class="runs"><thead><tr>
<th data-sort="name">search</th><th data-sort="state">state</th>
<th data-sort="score" class="number">best score</th><th data-sort="done">fits</th>
<th data-sort="elapsed" class="number">time</th><th data-sort="created" class="number">age</th>
</tr></thead><tbody></tbody></table><p class="empty">Reading the runs…</p></main>
"""
_RUN = """
<main class="one"><div class="live"><p class="empty">Reading the run…</p></div>
<section class="dhps wide slices" hidden><h4>Scores by parameter</h4><div class="charts"></div>
</section>
<section class="dhps wide trials"><header><h4>Candidates</h4>
<label>Find <input type="search" class="find" placeholder="max_depth=3"></label>
<label>Status <select class="status"><option value="">all</option><option>complete</option>
<option>failed</option><option>dropped</option><option>unfinished</option></select></label>
<nav><button type="button" class="before" aria-label="previous page">&lsaquo;</button>
<span class="place" aria-live="polite"></span>
<button type="button" class="after" aria-label="next page">&rsaquo;</button></nav></header>
<div class="scroll"><table><thead></thead><tbody></tbody></table></div></section>
<details class="dhps wide logs"><summary>Logs</summary><pre tabindex="0"></pre></details></main>
"""
