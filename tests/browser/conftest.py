"""Fixtures of the tests in a browser: Chromium without a window, and Jupyter's pages."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
import pytest

from tests.browser.page import Notebook, open_browser, until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from selenium.webdriver.remote.webdriver import WebDriver

ROOT = Path(__file__).parents[2]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all tests of this folder."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebDriver]:
    """Chromium, with a profile that ends with the tests."""
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        pytest.skip("needs chromium and chromedriver: apt-get install chromium-driver")
    driver = open_browser(tmp_path_factory.mktemp("chromium"))
    yield driver
    driver.quit()


@dataclass(frozen=True)
class Lab:
    """A running JupyterLab or Notebook.

    Attributes
    ----------
    url, token : str
    folder : Path
        Of its notebooks.
    place : str
        Path of the page of a notebook.
    """

    url: str
    token: str
    folder: Path
    place: str

    def open(self, browser: WebDriver, cells: Sequence[str], *, name: str) -> Notebook:
        """Open a new notebook with some cells of code."""
        notebook = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(one) for one in cells]
        )
        notebook.metadata["kernelspec"] = {
            "name": "python3",
            "display_name": "Python 3 (ipykernel)",
            "language": "python",
        }
        path = self.folder / f"{name}.ipynb"
        nbformat.write(notebook, path)
        browser.get(f"{self.url}{self.place}/{path.name}?token={self.token}")
        return Notebook.opened(browser, path)


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """JupyterLab."""
    with serving("jupyterlab", "LabApp", "doc/tree", tmp_path_factory) as running:
        yield running


@pytest.fixture
def notebook_7(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Jupyter Notebook."""
    application = "JupyterNotebookApp"
    with serving("notebook", application, "notebooks", tmp_path_factory) as running:
        yield running


@contextlib.contextmanager
def serving(
    module: str, application: str, place: str, folders: pytest.TempPathFactory
) -> Iterator[Lab]:
    """Serve notebooks on loopback while the block runs, without the user's settings."""
    import jupyterlab

    folder, home = folders.mktemp("notebooks"), folders.mktemp("lab")
    share = Path(jupyterlab.__file__).parents[4] / "share" / "jupyter"
    token, port = secrets.token_hex(16), free_port()
    environment = os.environ | {
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "JUPYTER_PATH": str(share),
        "JUPYTERLAB_DIR": str(share / "lab"),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "IPYTHONDIR": str(home / "ipython"),
        "JUPYTER_TOKEN": token,
        "PYTHONPATH": str(ROOT),
    }
    for name, setting in (
        # All cells are in the page, whether they are in sight or not.
        ("notebook-extension/tracker", '{"windowingMode": "none"}'),
        ("apputils-extension/notification", '{"fetchNews": "false"}'),
    ):
        path = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(setting)
    command = [
        *[sys.executable, "-m", module, "--allow-root", "--no-browser"],
        *[f"--ServerApp.port={port}", "--ServerApp.ip=127.0.0.1"],
        *["--ServerApp.port_retries=0", f"--ServerApp.root_dir={folder}"],
        *["--LabApp.news_url=", f"--{application}.expose_app_in_browser=True"],
    ]
    with (home / "log").open("wb") as log:
        server = subprocess.Popen(
            command, env=environment, stdout=log, stderr=subprocess.STDOUT, cwd=folder
        )
    url = f"http://127.0.0.1:{port}/"
    try:
        until(
            lambda: answers(f"{url}api/status?token={token}"), f"{module} starts", 240
        )
        yield Lab(url, token, folder, place)
    finally:
        server.terminate()
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def answers(url: str) -> bool:
    """Whether a server answers."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 (loopback)
            return bool(answer.status == 200)
    except OSError:
        return False
