"""The dashboard in Chromium: many runs, one of them live, and many candidates."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from dask_hpsearch.dashboard.server import known_runs
from dask_hpsearch.journal.run_state import RunState
from dask_hpsearch.runs.requests import list_requests
from dask_hpsearch.stores import open_store
from tests.browser.page import until
from tests.dashboard.conftest import serving
from tests.live.runs import WrittenRun

if TYPE_CHECKING:
    from pathlib import Path

    from selenium.webdriver.remote.webdriver import WebDriver

pytestmark = pytest.mark.timeout(300)


def count(browser: WebDriver, selector: str) -> int:
    """Return how many elements of a kind the page has."""
    return int(
        browser.execute_script(  # type: ignore[no-untyped-call]
            "return document.querySelectorAll(arguments[0]).length", selector
        )
    )


def text(browser: WebDriver, selector: str) -> str:
    """Return the text of an element; "" if it is not there."""
    return str(
        browser.execute_script(  # type: ignore[no-untyped-call]
            "return document.querySelector(arguments[0])?.innerText ?? ''", selector
        )
    )


def click(browser: WebDriver, selector: str) -> None:
    """Click on an element, once it is there."""
    until(lambda: count(browser, selector), f"{selector} is there")
    browser.execute_script(  # type: ignore[no-untyped-call]
        "document.querySelector(arguments[0]).click()", selector
    )


def problems(browser: WebDriver) -> list[str]:
    """Return errors in the console, such as violations of the policy."""
    return [
        str(one["message"])
        for one in browser.get_log("browser")  # type: ignore[no-untyped-call]
        if one["level"] == "SEVERE"
    ]


def test_fifty_runs_of_which_one_is_live(browser: WebDriver, tmp_path: Path) -> None:
    """All are listed; the live one moves, is opened, and is stopped by its button."""
    store = open_store(tmp_path)
    for number in range(49):
        ended = WrittenRun(store, n_candidates=4, name=f"run {number}", seed=number + 1)
        ended.begin()
        ended.finish_candidates(4)
        ended.end(RunState.FINISHED)
    live = WrittenRun(store, n_candidates=60, name="live one", seed=99)
    live.begin()
    live.finish_candidates(10)
    with serving(known_runs(str(tmp_path))) as server:
        browser.get(server.url)
        until(lambda: count(browser, ".runs tbody tr") == 50, "50 runs are listed")
        until(lambda: count(browser, ".dhps-is-finished") == 49, "all are read")
        assert server.secrets.token not in browser.current_url

        browser.get(f"http://127.0.0.1:{server.port}/runs/{live.run.run_id}")
        until(lambda: "50 of 300" in text(browser, ".dhps-scale"), "the run is shown")
        live.finish_candidates(10, 10)
        until(lambda: "100 of 300" in text(browser, ".dhps-scale"), "it moves")
        click(browser, ".dhps-stop")
        click(browser, ".dhps-strong")
        until(lambda: "asked to stop" in text(browser, ".dhps-said"), "it is asked")

        (request,) = list_requests(live.folder.store)
        assert request.startswith("requests/stopped-")
        live.end(RunState.STOPPED)
        until(lambda: count(browser, ".dhps-is-stopped") == 1, "its end is shown")
        assert not problems(browser)


def test_ten_thousand_candidates_stay_usable(
    browser: WebDriver, tmp_path: Path
) -> None:
    """The page has few rows of them; sorting and filtering are the server's."""
    run = WrittenRun(open_store(tmp_path), n_candidates=10_000, seconds=0.01)
    run.failing = frozenset({17})
    run.begin()
    run.finish_candidates(10_000)
    run.end(RunState.FINISHED)
    with serving(known_runs(run.run.url)) as server:
        browser.get(server.url)
        until(lambda: count(browser, ".trials tbody tr") == 50, "the first page")
        paint = browser.execute_script(  # type: ignore[no-untyped-call]
            "return performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
        )
        print(f"first paint after {paint:.0f} ms")  # noqa: T201 (measured, not asserted)

        assert "10,000" in text(browser, ".place")
        assert count(browser, ".dhps-curve circle") < 400
        began = time.monotonic()
        click(browser, ".after")
        until(lambda: text(browser, ".place").startswith("51"), "the second page")
        print(f"next page after {time.monotonic() - began:.2f} s")  # noqa: T201
        browser.execute_script(  # type: ignore[no-untyped-call]
            "const one = document.querySelector('.status'); one.value = 'failed';"
            "one.dispatchEvent(new Event('change'));"
        )
        until(lambda: count(browser, ".trials tbody tr") == 1, "the failed candidate")
        assert not problems(browser)


def test_without_the_token_the_page_says_what_to_do(
    browser: WebDriver, tmp_path: Path
) -> None:
    """Another user of this machine sees no run."""
    WrittenRun(open_store(tmp_path), name="secret").begin()
    with serving(known_runs(str(tmp_path))) as server:
        browser.delete_all_cookies()
        browser.get(f"http://127.0.0.1:{server.port}/")

        shown = text(browser, "body")

    assert "open the address that dask-hpsearch dashboard printed" in shown
    assert "secret" not in shown
