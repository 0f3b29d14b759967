"""The code of README and of the manual runs as it is, pasted in its order."""

from __future__ import annotations

import ast
import builtins
import os
import subprocess
import sys
from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_notebook

from tests.manual.pages import PYTHON, SHELL, blocks, pages, run_blocks
from tests.notebooks.running import execute
from tests.processes import ROOT, script

PAGES = pages()
RUN = [one for one in PAGES if run_blocks(one, (*PYTHON, *SHELL))]
IN_KERNELS = [one for one in RUN if run_blocks(one, PYTHON)]
# All pages run as scripts; in a kernel, the others run with the slow tests.
ALWAYS_IN_KERNELS = ("README.md", "tour.md", "live-view.md", "runs.md")
END = """
import threading

for thread in threading.enumerate():
    if isinstance(thread, threading.Timer):
        thread.cancel()
print("pasted")
"""
END_OF_README = """
assert found.best_score_ > 0.9
assert type(fitted).__name__ == "RandomizedSearchCV"
assert set(fitted.best_params_) == set(space)
"""
# Languages of blocks that are shown, not run.
SHOWN = ("text", "yaml", "toml", "json")


def name_of(page: Path) -> str:
    """Return a page's path, as the name of its test."""
    return page.relative_to(ROOT).as_posix()


def names_used(tree: ast.AST) -> set[str]:
    """Names that a block reads."""
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    return {node.id for node in names if isinstance(node.ctx, ast.Load)}


def names_made(tree: ast.AST) -> set[str]:
    """Names that a block makes, by import, assignment or definition."""
    made = {
        (alias.asname or alias.name).split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    made |= {node.id for node in names if isinstance(node.ctx, ast.Store)}
    defined = ast.FunctionDef | ast.ClassDef
    made |= {node.name for node in ast.walk(tree) if isinstance(node, defined)}
    return made | {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_says_what_it_is(page: Path) -> None:
    """So that none is left out by accident: an indented block has no language."""
    unknown = [
        str(one)
        for one in blocks(page)
        if one.language not in (*PYTHON, *SHELL, *SHOWN)
    ]

    assert unknown == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_that_is_not_run_has_a_reason(page: Path) -> None:
    """An empty marker is none."""
    assert [str(one) for one in blocks(page) if one.reason == ""] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_knows_its_names(page: Path) -> None:
    """Those that are not run too: a page explains itself, from its first block on."""
    known = set(dir(builtins))
    for block in blocks(page):
        if block.language in PYTHON:
            tree = ast.parse(block.code)
            known |= names_made(tree)
            assert names_used(tree) <= known, str(block)


def test_pages_of_the_guide_have_blocks_that_run() -> None:
    """Pages may be written anew: what is tried here is not to become nothing."""
    assert len(IN_KERNELS) > 10
    assert ROOT / "README.md" in IN_KERNELS


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder of one page alone: its runs are the only ones."""
    monkeypatch.setenv("DASK_HPSEARCH_HOME", str(tmp_path / "home"))
    work = tmp_path / "work"
    work.mkdir()
    return work


def pasted(page: Path) -> list[str]:
    """Return a page's blocks of Python, and what is checked after them."""
    code = [one.code for one in run_blocks(page, PYTHON)]
    return [*code, END_OF_README, END] if page.name == "README.md" else [*code, END]


@pytest.mark.timeout(400)
@pytest.mark.parametrize("page", RUN, ids=name_of)
def test_a_page_runs_in_a_script_and_its_commands_in_a_shell(
    page: Path, home: Path
) -> None:
    """Without anything around them, from the first line on; every warning is an error."""
    with script("\n".join(pasted(page)), home) as process:
        output, errors = process.communicate(timeout=360)

    assert process.returncode == 0, errors
    assert output.splitlines()[-1] == "pasted"
    for block in run_blocks(page, SHELL):
        run_in_shell(block.code, home)


def run_in_shell(code: str, folder: Path) -> None:
    """Run a block in a shell that ends with the first command that fails."""
    lines = [line.removeprefix("$ ") for line in code.splitlines()]
    programs = Path(sys.executable).parent
    path = os.pathsep.join((str(programs), os.environ["PATH"]))
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(lines)],  # noqa: S607 (any bash)
        cwd=folder,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(
            one, marks=[] if one.name in ALWAYS_IN_KERNELS else pytest.mark.slow
        )
        for one in IN_KERNELS
    ],
    ids=name_of,
)
def test_a_page_runs_in_a_kernel(page: Path, home: Path) -> None:
    """A cell for each block: a notebook has warning filters of its own."""
    cells = [new_code_cell(text) for text in pasted(page)]

    output = execute(new_notebook(cells=cells), home, timeout_s=360)

    assert output.rstrip().splitlines()[-1] == "pasted"
