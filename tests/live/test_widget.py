from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from dask_hpsearch.exceptions import StoreError
from dask_hpsearch.journal.run_state import RunState
from dask_hpsearch.live.widget import NotebookView, act
from dask_hpsearch.runs.live import LiveRun
from dask_hpsearch.runs.notebook_view import scalable, stop
from dask_hpsearch.runs.requests import list_requests
from tests.live.runs import WrittenRun
from tests.runs.recorded import new_store

if TYPE_CHECKING:
    from dask_hpsearch.live.state import LiveState

VIEW = "application/vnd.jupyter.widget-view+json"


def chip(state: str) -> str:
    """Return how the HTML says a state."""
    return f'class="dhps-chip dhps-is-{state}"'


class Output:
    """IPython's display, and the handle that it returns."""

    def __init__(self) -> None:
        self.bundles: list[dict[str, Any]] = []
        self.ended = threading.Event()

    def __call__(self, obj: Any, *, raw: bool, display_id: bool) -> Output:
        assert raw
        assert display_id
        self.bundles.append(obj)
        return self

    def update(self, obj: Any, *, raw: bool) -> None:
        assert raw
        self.bundles.append(obj)
        if VIEW not in obj and chip("running") not in obj["text/html"]:
            self.ended.set()


class Followed(LiveRun):
    """A run with words, whose store may fail."""

    fails = False

    def refresh(self) -> LiveState:
        if self.fails:
            msg = "the store does not answer"
            raise StoreError(msg)
        return super().refresh()

    def lines(self) -> list[str]:
        return ["words"]


def view_of(run: WrittenRun, **options: Any) -> tuple[NotebookView, Output, Followed]:
    """A view that is not displayed yet."""
    output, followed = Output(), Followed(run.run)
    settings: dict[str, Any] = {"blocks": False, "every_s": 0.05} | options
    actions = {"stop": lambda: stop(run.run)}
    return NotebookView(followed, actions, output, **settings), output, followed


@pytest.fixture
def run() -> WrittenRun:
    """A run under way."""
    written = WrittenRun(new_store(), n_candidates=20).begin()
    written.finish_candidates(5)
    return written


def test_the_output_has_a_widget_beside_html_and_text(run: WrittenRun) -> None:
    """Whatever a front end can show."""
    view, output, _ = view_of(run)

    view.start()

    first = output.bundles[0]
    assert set(first) == {VIEW, "text/html", "text/plain"}
    assert "25 of 100 fits" in first["text/html"]
    assert first["text/plain"] == "words"
    view.close()


def test_a_view_follows_the_run_to_its_end_and_leaves_html(run: WrittenRun) -> None:
    """In the background; the last output needs no kernel."""
    view, output, _ = view_of(run)
    view.start()

    run.finish_candidates(15, 5)
    run.end(RunState.FINISHED)

    assert output.ended.wait(60)
    assert set(output.bundles[-1]) == {"text/html", "text/plain"}
    assert chip("finished") in output.bundles[-1]["text/html"]
    assert "100 of 100 fits" in output.bundles[-1]["text/html"]


def test_a_view_of_a_fit_is_closed_by_the_fit(run: WrittenRun) -> None:
    """Its last state is that after the fit, and its thread has ended."""
    view, output, _ = view_of(run, blocks=True)
    view.start()
    run.end(RunState.STOPPED, reason="interrupted")

    view.close()

    assert chip("stopped") in output.bundles[-1]["text/html"]
    names = [one.name for one in threading.enumerate()]
    assert "dask-hpsearch-live" not in names


def test_a_store_that_fails_for_a_while_ends_nothing(run: WrittenRun) -> None:
    """The last state stays, and the view goes on when the store is back."""
    view, output, followed = view_of(run)
    view.start()
    followed.fails = True
    time.sleep(0.3)
    followed.fails = False

    run.end(RunState.FINISHED)

    assert output.ended.wait(60)


def test_an_ended_run_needs_no_widget(run: WrittenRun) -> None:
    """Nothing changes any more."""
    run.end(RunState.FINISHED)
    view, output, _ = view_of(run)

    view.start()

    assert [set(one) for one in output.bundles] == [{"text/html", "text/plain"}]


def test_without_anywidget_the_view_is_html_that_is_replaced(
    run: WrittenRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the extra is not installed."""
    from dask_hpsearch.live import widget

    widget._widget_class.cache_clear()
    monkeypatch.setitem(sys.modules, "anywidget", None)
    view, output, _ = view_of(run)
    view.start()

    run.end(RunState.FINISHED)

    assert output.ended.wait(60)
    assert all(VIEW not in one for one in output.bundles)


class Page:
    """A widget's page, as far as answers go."""

    def __init__(self) -> None:
        self.replies: list[dict[str, Any]] = []

    def send(self, reply: dict[str, Any]) -> None:
        self.replies.append(reply)


def test_the_stop_button_asks_the_driver(run: WrittenRun) -> None:
    """And the page gets a sentence, with the number of its message."""
    view, _, _ = view_of(run)
    page = Page()

    view._answer(page, {"number": 7, "action": "stop"}, [])

    (request,) = list_requests(run.folder.store)
    assert request.startswith("requests/stopped-")
    assert page.replies[0]["number"] == 7
    assert "asked to stop" in page.replies[0]["said"]


def test_a_message_that_asks_for_something_else_is_refused(run: WrittenRun) -> None:
    """The page gets the reason, and nothing is done."""
    view, _, _ = view_of(run)
    page = Page()

    view._answer(page, {"number": 1, "action": "delete"}, [])

    assert page.replies[0]["error"].startswith("action must be one of ['stop']")
    assert not list_requests(run.folder.store)


@pytest.mark.parametrize("n", [-1, 1.5, "2", True, None])
def test_a_number_of_workers_is_a_whole_number(n: Any) -> None:
    """A page could send anything."""
    with pytest.raises(ValueError, match="number of workers must be 0 or more"):
        act({"scale": lambda n: f"{n}"}, {"action": "scale", "n": n})


def test_a_cluster_that_adapts_is_not_scaled_by_hand() -> None:
    """Nor something that cannot scale."""

    class Cluster:
        _adaptive = None

        def scale(self, n: int) -> None:
            """As Dask's."""

    cluster = Cluster()
    assert scalable(cluster)
    cluster._adaptive = object()  # type: ignore[assignment]
    assert not scalable(cluster)
    assert not scalable(None)
