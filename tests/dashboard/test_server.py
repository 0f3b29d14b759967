from __future__ import annotations

import http.client
import json
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from dask_hpsearch.dashboard.access import ACTION_HEADER, check_loopback
from dask_hpsearch.dashboard.server import DashboardServer, known_runs
from dask_hpsearch.journal.run_state import RunState
from dask_hpsearch.runs.requests import list_requests
from dask_hpsearch.stores import open_store
from tests.dashboard.conftest import serving
from tests.live.runs import WrittenRun

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass
class Visitor:
    """Sends requests to a server, as a browser or an attacker would."""

    server: DashboardServer
    cookie: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def origin(self) -> str:
        """The server's own."""
        return f"http://127.0.0.1:{self.server.port}"

    def ask(
        self, path: str, method: str = "GET", **headers: str | None
    ) -> http.client.HTTPResponse:
        """Send a request; a header of None is left out."""
        connection = http.client.HTTPConnection(
            "127.0.0.1", self.server.port, timeout=30
        )
        sent: dict[str, str | None] = {"Cookie": self.cookie or None, **self.headers}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        given = {name: value for name, value in sent.items() if value is not None}
        connection.request(method, path, headers=given)
        answer = connection.getresponse()
        answer.body = answer.read()  # type: ignore[attr-defined]
        connection.close()
        return answer

    def json(self, path: str) -> Any:
        """Return a JSON answer."""
        answer = self.ask(path)
        assert answer.status == 200, answer.body  # type: ignore[attr-defined]
        return json.loads(answer.body)  # type: ignore[attr-defined]

    def enter(self) -> Visitor:
        """Exchange the token for the cookie."""
        answer = self.ask(f"/?token={self.server.secrets.token}")
        self.cookie = str(answer.headers["Set-Cookie"]).split(";")[0]
        return self

    def act(self, path: str, **headers: str | None) -> int:
        """Send an action as the dashboard's page does, but for some headers."""
        own = {"Origin": self.origin, ACTION_HEADER: self.server.secrets.action}
        return self.ask(path, "POST", **own | headers).status


@pytest.fixture
def run(tmp_path: Path) -> WrittenRun:
    """A run under way in a store."""
    written = WrittenRun(open_store(tmp_path), n_candidates=30, failing=frozenset({3}))
    written.begin()
    written.finish_candidates(20)
    return written


@pytest.fixture
def visitor(run: WrittenRun, tmp_path: Path) -> Iterator[Visitor]:
    """Someone without the token."""
    with serving(known_runs(str(tmp_path))) as server:
        yield Visitor(server)


PATHS = ["/", "/api/runs", "/static/live.js", "/static/dashboard.js", "/nowhere"]


@pytest.mark.parametrize("path", [*PATHS, "/?token=wrong", "/?token="])
def test_nothing_is_shown_without_the_token(visitor: Visitor, path: str) -> None:
    """Not even a script."""
    answer = visitor.ask(path)

    assert answer.status == 403
    assert "Set-Cookie" not in answer.headers


def test_the_token_lets_in_at_the_entry_only(visitor: Visitor) -> None:
    """Elsewhere it would stay in the history of the browser."""
    assert visitor.ask(f"/api/runs?token={visitor.server.secrets.token}").status == 403


def test_the_token_becomes_a_cookie_that_scripts_cannot_read(visitor: Visitor) -> None:
    """And that no other site's requests bring along; it is not the token."""
    answer = visitor.ask(f"/?token={visitor.server.secrets.token}")

    cookie = str(answer.headers["Set-Cookie"])
    assert answer.status == 200
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert visitor.server.secrets.token not in cookie
    assert visitor.enter().ask("/").status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1:1", "localhost", ""]
)
def test_another_host_is_refused(visitor: Visitor, host: str) -> None:
    """A name that an attacker lets resolve to loopback."""
    host = host.format(port=visitor.server.port)

    assert visitor.enter().ask("/", Host=host).status == 403
    token = visitor.server.secrets.token
    assert visitor.ask(f"/?token={token}", Host=host).status == 403


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:1"]
)
@pytest.mark.parametrize("path", ["/", "/api/runs"])
def test_another_origin_is_refused(visitor: Visitor, path: str, origin: str) -> None:
    """With the cookie too, and it gets no permission to read."""
    answer = visitor.enter().ask(path, Origin=origin)

    assert answer.status == 403
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_a_websocket_of_another_origin_is_refused(visitor: Visitor) -> None:
    """Browsers open those to any server, with its cookies."""
    visitor.enter()
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec_WebSocket_Version": "13",
        "Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }

    for path in ("/", "/api/runs", "/ws"):
        answer = visitor.ask(path, **upgrade, Origin="http://evil.example")
        assert answer.status == 403


def test_a_request_that_another_site_embeds_is_refused(visitor: Visitor) -> None:
    """Such as an image; following a link is allowed."""
    visitor.enter()

    assert visitor.ask("/api/runs", Sec_Fetch_Site="cross-site").status == 403
    navigates = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate"}
    assert visitor.ask("/", **navigates).status == 200


@pytest.mark.parametrize(
    "address",
    ["0.0.0.0", "::", "192.168.1.7", "example.org", ""],  # noqa: S104 (refused)
)
def test_an_address_that_others_reach_is_refused(tmp_path: Path, address: str) -> None:
    """The server would be everybody's."""
    with pytest.raises(ValueError, match="of this machine alone"):
        DashboardServer(known_runs(str(tmp_path)), address=address)


def test_loopback_has_several_names() -> None:
    """All are of this machine."""
    assert check_loopback("localhost") == "127.0.0.1"
    assert check_loopback("::1") == "::1"


def test_the_server_listens_on_loopback_only(visitor: Visitor) -> None:
    """Another address of this machine does not answer."""
    own = {one[4][0] for one in socket.getaddrinfo(socket.gethostname(), None)}
    for address in sorted(map(str, own)):
        if address.startswith("127.") or address == "::1":
            continue
        with pytest.raises(OSError, match="refused"):
            socket.create_connection((address, visitor.server.port), timeout=5)


def test_pages_may_load_nothing_from_elsewhere(visitor: Visitor) -> None:
    """Nor run scripts that are in the page, nor be framed."""
    policy = visitor.enter().ask("/").headers["Content-Security-Policy"]

    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "http" not in policy
    assert "unsafe" not in policy


def test_the_runs_of_a_store_are_listed(visitor: Visitor, run: WrittenRun) -> None:
    """With state, score and age."""
    (row,) = visitor.enter().json("/api/runs")["runs"]

    assert (row["id"], row["state"], row["name"]) == (
        run.run.run_id,
        "running",
        "churn",
    )
    assert row["score"] == run.run.progress().best_score
    # Beside finished fits stand failed fits, not candidates.
    failed = run.run.progress().fits_failed
    assert (row["done"], row["failed"]) == (100, failed)
    assert failed > 1
    assert row["created"] == pytest.approx(run.folder.manifest.created)


def test_a_run_is_shown_as_notebooks_show_it(visitor: Visitor, run: WrittenRun) -> None:
    """The same sections, the same facts."""
    state = visitor.enter().json(f"/api/runs/{run.run.run_id}")

    assert state["actions"] == ["stop", "cancel"]
    assert state["facts"]["fits_done"] == 100
    assert "<progress" in state["parts"]["bar"]
    assert visitor.ask(f"/runs/{run.run.run_id}").status == 200
    assert visitor.ask("/runs/20260101-000000-00000000").status == 404


def test_trials_are_sorted_filtered_and_paged(
    visitor: Visitor, run: WrittenRun
) -> None:
    """By the server, so that the page has few of them."""
    path = f"/api/runs/{run.run.run_id}/trials"
    visitor.enter()

    best = visitor.json(f"{path}?limit=5")
    second = visitor.json(f"{path}?limit=5&offset=5")
    failed = visitor.json(f"{path}?status=failed")
    name = "histgradientboostingclassifier__max_leaf_nodes"
    leaves = visitor.json(f"{path}?q={name}%3D31&limit=200")
    by_rate = visitor.json(
        f"{path}?sort=param:histgradientboostingclassifier__learning_rate&order=asc"
    )

    scores = [row["score"] for row in best["rows"] + second["rows"]]
    assert scores == sorted(scores, reverse=True)
    assert (best["total"], best["found"], len(best["rows"])) == (20, 20, 5)
    assert [row["candidate"] for row in failed["rows"]] == ["3"]
    assert leaves["found"] == sum(one[name] == 31 for one in run.params[:20])
    rates = [float(next(iter(row["params"].values()))) for row in by_rate["rows"]]
    assert rates == sorted(rates)
    assert visitor.ask(f"{path}?offset=x").status == 400


def test_an_action_of_the_page_asks_the_driver(
    visitor: Visitor, run: WrittenRun
) -> None:
    """As `SearchRun.stop` does."""
    visitor.enter()

    assert visitor.act(f"/api/runs/{run.run.run_id}/stop") == 200

    (request,) = list_requests(run.folder.store)
    assert request.startswith("requests/stopped-")


@pytest.mark.parametrize(
    "headers",
    [
        {ACTION_HEADER: None},
        {ACTION_HEADER: "wrong"},
        {"Origin": None},
        {"Origin": "http://evil.example"},
        {"Cookie": None},
        {"Host": "evil.example"},
    ],
)
def test_an_action_of_another_page_is_refused(
    visitor: Visitor, run: WrittenRun, headers: dict[str, str | None]
) -> None:
    """It needs cookie, origin and token."""
    visitor.enter()

    for action in ("stop", "cancel"):
        assert visitor.act(f"/api/runs/{run.run.run_id}/{action}", **headers) == 403

    assert not list_requests(run.folder.store)


def test_a_get_changes_nothing(visitor: Visitor, run: WrittenRun) -> None:
    """An action is a POST."""
    assert visitor.enter().ask(f"/api/runs/{run.run.run_id}/stop").status == 405
    assert not list_requests(run.folder.store)


def test_a_run_that_has_ended_is_not_started_again(
    visitor: Visitor, run: WrittenRun
) -> None:
    """Stopping a run without a driver would start one."""
    run.end(RunState.INTERRUPTED)
    visitor.enter()

    assert visitor.act(f"/api/runs/{run.run.run_id}/stop") == 200

    assert not list_requests(run.folder.store)


def test_one_run_can_be_shown_alone(run: WrittenRun) -> None:
    """Its page is the first one; other runs of the store are not shown."""
    WrittenRun(run.store, name="other").begin()
    with serving(known_runs(run.run.url)) as server:
        visitor = Visitor(server).enter()

        assert visitor.ask("/").headers["Location"] == f"/runs/{run.run.run_id}"
        assert len(visitor.json("/api/runs")["runs"]) == 1


def test_logs_are_shown(visitor: Visitor, run: WrittenRun) -> None:
    """Those of the run's drivers."""
    run.folder.store.create("logs/driver-000.log", b"hello from the driver\n")

    answer = visitor.enter().ask(f"/api/runs/{run.run.run_id}/logs")

    assert b"hello from the driver" in answer.body  # type: ignore[attr-defined]
    assert answer.headers["Content-Type"].startswith("text/plain")
