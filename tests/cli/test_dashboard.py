from __future__ import annotations

import signal
import subprocess
import sys
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


def test_the_command_serves_until_it_is_interrupted(tmp_path: Path) -> None:
    """It prints an address with a token; without the token it shows nothing."""
    command = [sys.executable, "-m", "dask_hpsearch.cli", "dashboard", str(tmp_path)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        url = server.stdout.readline().removeprefix("Dashboard: ").strip()
        hint = server.stdout.readline()

        with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310 (loopback)
            assert answer.status == 200
        with pytest.raises(urllib.error.HTTPError, match="403") as refused:
            urllib.request.urlopen(url.partition("?")[0], timeout=60)  # noqa: S310
        refused.value.close()
    finally:
        server.send_signal(signal.SIGINT)
        server.communicate(timeout=60)

    assert url.startswith("http://127.0.0.1:")
    assert "Ctrl-C ends it" in hint
    assert server.returncode == 0
