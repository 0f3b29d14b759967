"""The tutorial's notebooks run, and are what they should be."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

import pytest

from tests.notebooks.running import NOTEBOOKS, is_parameters, read, run

if TYPE_CHECKING:
    from pathlib import Path

NAMES = sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))
ON_GKE = [name for name in NAMES if "gke" in name]
STEPS = {
    "configure": "estimate(spec)",
    "build": "gke_cluster|ensure_image",
    "create": "cluster = gke_cluster(",
    "upload": "dask_hpsearch.upload(",
    "submit": ").submit(",
    "watch": "run.progress()",
    "scale": "cluster.scale(",
    "result": "run.result()",
    "restore": "SearchRun.attach(",
    "logs": "run.logs()",
    "clean up": "cluster.close()",
}


@pytest.mark.timeout(300)
def test_the_local_notebook_runs_as_it_is(tmp_path: Path) -> None:
    """From its first cell to its last, and it leaves one file."""
    shown = run("01_local_search", tmp_path)

    assert "accuracy on images that no fit has seen: 0.9" in shown
    assert "'max_time'" in shown
    assert not re.search(r"\b0 of \d+ fits", shown)
    assert "Empty DataFrame" not in shown
    assert [path.name for path in tmp_path.iterdir()] == ["found.pkl"]


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_has_one_cell_of_settings_and_no_outputs(name: str) -> None:
    """Settings come first; what somebody's run has shown is not kept."""
    notebook = read(name)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]

    assert [is_parameters(cell) for cell in code] == [True] + [False] * (len(code) - 1)
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert notebook.cells[0].source.startswith("# ")


@pytest.mark.parametrize("name", NAMES)
def test_every_cell_of_code_is_introduced(name: str) -> None:
    """Nobody has to guess what a cell does; a watch cell may follow its submit."""
    kinds = [cell.cell_type for cell in read(name).cells]

    assert kinds[0] == "markdown"
    assert "code code code" not in " ".join(kinds)


@pytest.mark.parametrize("name", NAMES)
def test_every_cell_of_code_is_python(name: str) -> None:
    """No command of a shell or of a notebook alone."""
    for cell in read(name).cells:
        if cell.cell_type == "code":
            ast.parse(cell.source)


@pytest.mark.parametrize("name", ON_GKE)
def test_a_notebook_on_gke_goes_the_whole_way(name: str) -> None:
    """From the settings to the clean-up, in this order."""
    code = [cell.source for cell in read(name).cells if cell.cell_type == "code"]
    at = []
    for step, words in STEPS.items():
        found = [n for n, cell in enumerate(code) if _has(cell, words)]
        assert found, step
        at.append(found[-1] if step == "clean up" else found[0])

    assert at == sorted(at)


@pytest.mark.parametrize("name", NAMES)
def test_a_run_is_looked_at_once_there_is_something_to_see(name: str) -> None:
    """A driver takes a while to start: nobody is shown an empty table."""
    code = [cell.source for cell in read(name).cells if cell.cell_type == "code"]
    for cell in code:
        looks = [cell.find(word) for word in ("progress = run.progress()", "trials()")]
        if max(looks) >= 0:
            assert "fits_done == 0" in cell[: min(at for at in looks if at >= 0)]


def _has(cell: str, words: str) -> bool:
    return any(word in cell for word in words.split("|"))


def test_notebooks_lead_to_files_that_are_there() -> None:
    """A link that leads nowhere helps nobody."""
    for name in NAMES:
        for cell in read(name).cells:
            for link in re.findall(r"\]\(([^)#]+)\)", cell.source):
                if "://" not in link:
                    assert (NOTEBOOKS / link).exists(), (name, link)
