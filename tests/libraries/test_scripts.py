"""What users define in a script or notebook, with other libraries."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(
    path.name
    for path in (Path(__file__).parent / "scripts").glob("*.py")
    if "__main__" in path.read_text("utf-8")
)


@pytest.mark.parametrize("script", SCRIPTS)
def test_script(script: str, tmp_path: Path) -> None:
    """Fits, journals and results of what belongs to ``__main__`` are as plain ones."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests/libraries/scripts" / script)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert "is the same in every way" in done.stdout, done.stdout + done.stderr
