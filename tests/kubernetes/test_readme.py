"""Lines of README and the guide in a real Jupyter kernel, on workers in pods, which lack IPython."""

from __future__ import annotations

import ast
import os
from typing import TYPE_CHECKING

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

from tests.manual.pages import DOCS, PYTHON, Block, pages
from tests.manual.pages import blocks as manual_blocks
from tests.processes import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from dask_hpsearch.clusters.kubernetes.cluster import SearchKubeCluster
    from tests.kubernetes.bucket import FarBucket

GUIDE = DOCS / "guide"
# What the blocks take for granted, as small as two slots want it.
SETUP = """
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import RandomizedSearchCV, cross_val_score
from dask_hpsearch import DaskSearchCV, kube_cluster

X, y = load_iris(return_X_y=True)
space = {{"max_depth": [1, 2, 3]}}
search = RandomizedSearchCV(RandomForestClassifier(n_estimators=3), space, n_iter=2, cv=2)
cluster = kube_cluster(name={name!r}, namespace={namespace!r})
client = cluster.get_client()
client.wait_for_workers(1)
lacking = client.run(lambda: __import__("importlib.util").util.find_spec("IPython") is None)
assert all(lacking.values()), "the image has IPython: it shows nothing"
"""
IN_A_BUCKET = """
run = DaskSearchCV(search, client=client, store={store!r}).submit(X, y)
fitted = run.result(200)
print(len(fitted.cv_results_["params"]), "candidates")
client.close()
cluster.close()
"""
# Blocks of the cluster that is there, of time limits, of joblib, of a run in the background.
WANTED = (
    "DaskSearchCV(search, client=client, progress=True)",
    "max_time=",
    "fit_timeout=",
    "joblib.parallel_config(",
    "task_name=",
)


def blocks() -> list[str]:
    """Return blocks that a cluster of any kind can run, smaller than they are."""
    found: list[str] = []
    for block in all_blocks():
        code = without_setup(block.code)
        other = "gs://" in code or "_cluster(" in code or "upload(" in code
        if any(words in code for words in WANTED) and not other and code not in found:
            found.append(code)
    return found


def without_setup(code: str) -> str:
    """Leave out statements that set what is set here, as small as two slots want it."""
    lines = code.splitlines()
    for statement in reversed(ast.parse(code).body):
        if isinstance(statement, ast.Assign):
            (target,) = map(ast.unparse, statement.targets)
            if target in {"client", "search", "(X, y)", "X, y", "space"}:
                del lines[statement.lineno - 1 : statement.end_lineno]
    return "\n".join(lines)


def all_blocks() -> list[Block]:
    """Return the blocks of Python of README and the guide."""
    chosen = [one for one in pages() if one.parent in {ROOT, GUIDE}]
    found = [one for page in chosen for one in manual_blocks(page)]
    return [one for one in found if one.language in PYTHON]


def test_there_is_a_block_for_each_of_them() -> None:
    """Pages may be written anew: what is tried here is not to become nothing."""
    assert all(any(words in one for one in blocks()) for words in WANTED)


@pytest.mark.timeout(600)
def test_blocks_run_in_a_kernel(
    cluster: SearchKubeCluster, namespace: str, bucket: FarBucket, tmp_path: Path
) -> None:
    """fit, the joblib backend, submit to a process here and to a Job."""
    cluster.scale(2)
    setup = SETUP.format(name=cluster.name, namespace=namespace)
    last = IN_A_BUCKET.format(store=bucket.url)
    notebook = new_notebook(
        cells=[new_code_cell(code) for code in (setup, *blocks(), last)]
    )
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), before)))
    try:
        NotebookClient(
            notebook, timeout=240, resources={"metadata": {"path": str(tmp_path)}}
        ).execute()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before

    assert "2 candidates" in nbformat.writes(notebook)
