"""Runs a notebook, as it is or with other settings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell

if TYPE_CHECKING:
    from nbformat import NotebookNode

ROOT = Path(__file__).parents[2]
NOTEBOOKS = ROOT / "notebooks"


def read(name: str) -> NotebookNode:
    """Read a notebook of the tutorial."""
    return nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)


def run(name: str, folder: Path, *, settings: str = "", timeout_s: int = 300) -> str:
    """Run all cells of a notebook; fail with the first that fails.

    Parameters
    ----------
    name : str
    folder : Path
        Where it runs, so that what it writes is not left in the repository.
    settings : str
        Code that runs after the cell of settings.
    timeout_s : int
        For each cell.

    Returns
    -------
    str
        All that it has printed and shown.
    """
    notebook = read(name)
    if settings:
        at = [is_parameters(cell) for cell in notebook.cells].index(True)
        notebook.cells.insert(at + 1, new_code_cell(settings))
    return execute(notebook, folder, timeout_s=timeout_s)


def execute(notebook: NotebookNode, folder: Path, *, timeout_s: int = 300) -> str:
    """Run all cells in a kernel; return what they have printed and shown."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), before)))
    try:
        client = NotebookClient(
            notebook,
            timeout=timeout_s,
            resources={"metadata": {"path": str(folder)}},
        )
        client.execute()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
    return "\n".join(
        text
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        for text in (
            output.get("text", ""),
            output.get("data", {}).get("text/plain", ""),
        )
    )


def is_parameters(cell: NotebookNode) -> bool:
    """Whether a cell is the one of settings."""
    return "parameters" in cell.metadata.get("tags", [])
