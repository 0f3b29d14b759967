"""README's blocks of Python run as they are, pasted in their order."""

from __future__ import annotations

import ast
import builtins
import re
from typing import TYPE_CHECKING

import pytest
from nbformat.v4 import new_code_cell, new_notebook

from tests.notebooks.running import execute
from tests.processes import ROOT, script

if TYPE_CHECKING:
    from pathlib import Path

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
# What is not on this machine: a cluster of the reader's, a bucket, a Kubernetes.
ELSEWHERE = ("tcp://scheduler", "gs://", "kube_cluster(", "gke_cluster(")
LOCAL = [block for block in BLOCKS if not any(one in block for one in ELSEWHERE)]
END = """
import threading

for thread in threading.enumerate():
    if isinstance(thread, threading.Timer):
        thread.cancel()
client.close()
cluster.close()
print("pasted", found.best_score_ > 0.9, type(fitted).__name__, fitted.best_params_.keys())
"""


def names_used(tree: ast.AST) -> set[str]:
    """Names that a block reads."""
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    return {node.id for node in names if isinstance(node.ctx, ast.Load)}


def names_made(tree: ast.AST) -> set[str]:
    """Names that a block makes, by import or assignment."""
    made = {
        (alias.asname or alias.name).split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    return made | {node.id for node in names if isinstance(node.ctx, ast.Store)}


def test_every_block_knows_its_names() -> None:
    """Those that need a bucket or a Kubernetes too: nothing is left to be guessed."""
    known = set(dir(builtins))
    for block in BLOCKS:
        tree = ast.parse(block)
        known |= names_made(tree)
        assert names_used(tree) <= known, block


@pytest.mark.timeout(900)
def test_blocks_for_this_machine_run_as_pasted(tmp_path: Path) -> None:
    """In a script without anything around them, from the first line on."""
    assert len(LOCAL) > 5
    pasted = "\n".join([*LOCAL, END])

    with script(pasted, tmp_path) as process:
        output, errors = process.communicate(timeout=840)

    assert process.returncode == 0, errors
    assert output.splitlines()[-1].startswith("pasted True RandomizedSearchCV")


@pytest.mark.timeout(900)
def test_blocks_for_this_machine_run_in_a_kernel(tmp_path: Path) -> None:
    """A cell each, the joblib backend's among them: a notebook has warning filters of its own."""
    assert any('parallel_config("dask_hpsearch"' in block for block in LOCAL)
    notebook = new_notebook(cells=[new_code_cell(text) for text in [*LOCAL, END]])

    output = execute(notebook, tmp_path, timeout_s=600)

    assert output.rstrip().splitlines()[-1].startswith("pasted True RandomizedSearchCV")
