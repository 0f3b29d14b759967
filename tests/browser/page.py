"""A browser, and a notebook in it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from selenium import webdriver
from selenium.common.exceptions import (
    StaleElementReferenceException,
    WebDriverException,
)
from selenium.webdriver.chrome.service import Service

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from selenium.webdriver.remote.webdriver import WebDriver

VIEW = ".jp-OutputArea .dhps"


def open_browser(profile: Path, *, size: tuple[int, int] = (1280, 1000)) -> WebDriver:
    """Start Chromium; it uses no network of its own accord."""
    options = webdriver.ChromeOptions()
    for one in (
        "--headless=new",
        "--no-sandbox",  # tests may run as root
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-component-update",
        "--no-first-run",
        "--lang=en-US",
        f"--user-data-dir={profile}",
        f"--window-size={size[0]},{size[1]}",
    ):
        options.add_argument(one)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    options.binary_location = "/usr/bin/chromium"
    return webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))


def until(condition: Callable[[], Any], what: str, timeout: float = 120.0) -> Any:
    """Wait for a condition to hold, and return its value."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            value = condition()
        except (StaleElementReferenceException, WebDriverException):
            value = None
        if value:
            return value
        if time.monotonic() > deadline:
            msg = f"not within {timeout:g} s: {what}"
            raise AssertionError(msg)
        time.sleep(0.1)


@dataclass
class Notebook:
    """A notebook that is open in a page of Jupyter's.

    Attributes
    ----------
    browser : WebDriver
    path : Path
        Its file.
    """

    browser: WebDriver
    path: Path

    @classmethod
    def opened(cls, browser: WebDriver, path: Path) -> Notebook:
        """Wait until it is open, with a kernel that is idle."""
        notebook = cls(browser, path)
        until(
            lambda: notebook.script(
                # It may ask which kernel to start.
                "document.querySelector('.jp-Dialog .jp-mod-accept')?.click();"
                "const panel = window.jupyterapp?.shell.currentWidget;"
                "return panel?.sessionContext?.session?.kernel?.status === 'idle'"
            ),
            "the notebook has a kernel",
            180,
        )
        return notebook

    def until_idle(self, timeout: float = 90.0) -> None:
        """Wait until the kernel is idle."""
        until(
            lambda: self.script(
                "const kernel = window.jupyterapp.shell.currentWidget.sessionContext"
                ".session?.kernel; return kernel?.status === 'idle'"
            ),
            "the kernel is idle",
            timeout,
        )

    def script(self, code: str, *arguments: Any) -> Any:
        """Run JavaScript in the page."""
        return self.browser.execute_script(code, *arguments)  # type: ignore[no-untyped-call]

    def run(self, number: int) -> None:
        """Run a cell, and do not wait for it."""
        self.script(
            "const app = window.jupyterapp;"
            "app.shell.currentWidget.content.activeCellIndex = arguments[0];"
            "void app.commands.execute('notebook:run-cell');",
            number,
        )

    def text(self, selector: str = VIEW) -> str:
        """Return the text of the last element of a kind; "" if there is none."""
        return str(
            self.script(
                "const all = document.querySelectorAll(arguments[0]);"
                "return all.length ? all[all.length - 1].innerText : ''",
                selector,
            )
        )

    def until_text(
        self, words: str, selector: str = VIEW, timeout: float = 120.0
    ) -> str:
        """Wait for words in the last element of a kind; return its text."""
        found = ""

        def has_words() -> bool:
            nonlocal found
            found = self.text(selector)
            return words in found

        try:
            until(has_words, f"{words!r} in {selector}", timeout)
        except AssertionError as error:
            error.add_note(f"it has: {found!r}; page: {self.text('body')[-3000:]!r}")
            raise
        return found

    def click(self, selector: str) -> None:
        """Click on the last element of a kind, once it is there.

        In one step: the page may replace the element at any time.
        """
        until(
            lambda: self.script(
                "const all = document.querySelectorAll(arguments[0]);"
                "const one = all[all.length - 1];"
                "if (!one || !one.getClientRects().length) return false;"
                "one.click(); return true;",
                selector,
            ),
            f"{selector} is displayed",
        )

    def command(self, name: str) -> None:
        """Run a command of the page."""
        self.browser.execute_async_script(  # type: ignore[no-untyped-call]
            "const done = arguments[arguments.length - 1];"
            "window.jupyterapp.commands.execute(arguments[0]).then(() => done())",
            name,
        )

    def save(self) -> None:
        """Save it."""
        self.command("docmanager:save")
