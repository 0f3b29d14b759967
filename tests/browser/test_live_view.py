"""The live view in JupyterLab and Notebook: before, while and after a search runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import nbconvert
import nbformat
import pytest

from tests.browser.page import until

if TYPE_CHECKING:
    from selenium.webdriver.remote.webdriver import WebDriver

    from tests.browser.conftest import Lab
    from tests.browser.page import Notebook

pytestmark = pytest.mark.timeout(600)
SETUP = """
from sklearn.model_selection import GridSearchCV
from dask_hpsearch import DaskSearchCV, SearchRun, local_cluster
from tests.browser.estimators import Patient
from tests.estimators import flowers

X, y = flowers()
cluster = local_cluster(1, 2, dashboard_address=":0")
client = cluster.get_client()
search = GridSearchCV(Patient(), {"C": [n / 10 for n in range(1, 201)]}, cv=2)
dask_search = DaskSearchCV(search, client=client, progress=True, task_name="flowers")
"""
OUTPUT = ".jp-OutputArea-output"


def until_scores(notebook: Notebook) -> None:
    """Wait until the view has a complete candidate."""
    until(
        lambda: notebook.script(
            "return document.querySelector('.jp-OutputArea .dhps-score') !== null"
        ),
        "a candidate is complete",
        120,
    )


def saved_html(notebook: Notebook) -> str:
    """Save the notebook, and export it without a browser."""
    before = notebook.path.stat().st_mtime_ns
    notebook.save()
    until(lambda: notebook.path.stat().st_mtime_ns > before, "the notebook is saved")
    saved = nbformat.read(notebook.path, as_version=4)
    return str(nbconvert.HTMLExporter().from_notebook_node(saved)[0])


@pytest.fixture(autouse=True)
def templates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Find nbconvert's, though its environment's path may only be added to this one's."""
    share = Path(nbconvert.__file__).parents[4] / "share" / "jupyter"
    monkeypatch.setenv("JUPYTER_PATH", str(share))


@pytest.mark.parametrize("page", ["lab", "notebook_7"])
def test_a_fit_is_followed_and_stopped_by_the_button(
    page: str, browser: WebDriver, request: pytest.FixtureRequest
) -> None:
    """The kernel is busy with the cell, and hears the button all the same."""
    lab: Lab = request.getfixturevalue(page)
    cells = [SETUP, "found = dask_search.fit(X, y)", "print('was', found.stopped_)"]
    notebook = lab.open(browser, cells, name="fit")
    notebook.run(0)
    notebook.run(1)
    notebook.until_text("running")
    until_scores(notebook)

    notebook.click(".dhps-stop")
    asks = notebook.text(".dhps-question")
    notebook.click(".dhps-strong")
    notebook.until_text("stopped", ".dhps-chip", timeout=120)
    notebook.run(2)

    assert "Stop this search?" in asks
    # The request came through a subshell of the kernel, which was not interrupted.
    assert notebook.until_text("was ", OUTPUT).strip() == "was stopped"
    assert "flowers" in saved_html(notebook)


def test_a_question_can_be_taken_back(lab: Lab, browser: WebDriver) -> None:
    """Nothing happens before it is answered."""
    notebook = lab.open(browser, [SETUP, "run = dask_search.submit(X, y)"], name="back")
    notebook.run(0)
    notebook.run(1)
    until_scores(notebook)

    notebook.click(".dhps-stop")
    notebook.click(".dhps-question button:last-child")

    assert not notebook.text(".dhps-question")
    # The search itself answers: it goes on, with fits that begin after this.
    for _ in range(3):
        before = notebook.text(".dhps-scale")
        until(
            lambda before=before: notebook.text(".dhps-scale") != before,
            "the view goes on",
        )
    assert "running" in notebook.text(".dhps-chip")


def test_a_submitted_search_leaves_the_kernel_free_and_outlives_it(
    lab: Lab, browser: WebDriver
) -> None:
    """Followed in the background, attached after a restart, stopped, and exported."""
    # A driver with its own cluster, since that of the kernel ends with it.
    lines = [one for one in SETUP.splitlines() if "cluster" not in one.split("=")[0]]
    alone = "\n".join(one for one in lines if not one.startswith("client"))
    alone = alone.replace("client=client, ", "")
    alone = f"from dask_hpsearch import DaskSearchCV\n{alone}"
    attach = (
        "import time\nfrom pathlib import Path\nfrom dask_hpsearch import SearchRun\n"
        "run = SearchRun.attach(Path('url').read_text())\nrun.watch()"
    )
    submit = (
        "run = dask_search.submit(X, y)\n"
        "__import__('pathlib').Path('url').write_text(run.url)"
    )
    notebook = lab.open(
        browser, [alone, submit, "print('free', 6 * 7)", attach], name="submit"
    )
    notebook.run(0)
    notebook.run(1)
    until_scores(notebook)
    notebook.run(2)
    notebook.until_text("free 42", OUTPUT)
    before = notebook.text(".dhps-scale")
    until(lambda: notebook.text(".dhps-scale") != before, "the view goes on")

    notebook.script(
        "window.restarted = false;"
        "window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()"
        ".then(() => { window.restarted = true; });"
    )
    until(lambda: notebook.script("return window.restarted"), "the kernel restarts", 90)
    notebook.run(3)
    notebook.until_text("running", ".jp-Cell:nth-last-of-type(1) .dhps-chip", 120)
    notebook.click(".dhps-stop")
    notebook.click(".dhps-strong")
    notebook.until_text("stopped", timeout=120)

    exported = saved_html(notebook)
    assert 'class="dhps-chip dhps-is-stopped"' in exported
    assert "Top candidates" in exported
    Path(notebook.path.parent / "url").unlink()


def test_the_view_loads_nothing_from_elsewhere(lab: Lab, browser: WebDriver) -> None:
    """Every resource of the page is of the server, or within the page."""
    notebook = lab.open(
        browser, [SETUP, "run = dask_search.submit(X, y)"], name="local"
    )
    notebook.run(0)
    notebook.run(1)
    until_scores(notebook)

    loaded = notebook.script(
        "return performance.getEntriesByType('resource').map((one) => one.name)"
    )

    elsewhere = [
        one for one in loaded if not one.startswith((lab.url, "blob:", "data:"))
    ]
    assert not elsewhere
