from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import pytest
from sklearn.dummy import DummyClassifier
from sklearn.model_selection import GridSearchCV

from dask_hpsearch import DaskSearchCV

if TYPE_CHECKING:
    from pathlib import Path

    from distributed import Client, LocalCluster


def read(cluster: LocalCluster, path: str) -> tuple[str, str]:
    """Return the body and the policy of a page of Dask's dashboard."""
    port = cluster.scheduler.http_server.port
    url = f"http://127.0.0.1:{port}/{path}"
    with urllib.request.urlopen(url, timeout=60) as answer:
        policy = answer.headers.get("Content-Security-Policy", "")
        return answer.read().decode(), policy


def test_a_search_is_on_dasks_dashboard(
    cluster: LocalCluster, client: Client, tmp_path: Path
) -> None:
    """With its state, and without actions; other pages are still there."""
    search = GridSearchCV(DummyClassifier(), {"strategy": ["prior", "uniform"]}, cv=2)
    DaskSearchCV(search, client=client, store=tmp_path, task_name="on Dask").fit(
        [[0.0]] * 8, [0, 1] * 4
    )

    page, policy = read(cluster, "hpsearch")
    state = json.loads(read(cluster, "hpsearch/state")[0])["runs"][0]

    assert "hpsearch/page.js" in page
    assert "script-src 'self'" in policy
    assert "on Dask" in state["parts"]["head"]
    assert (state["state"], state["actions"]) == ("finished", [])
    assert "LiveView" in read(cluster, "hpsearch/live.js")[0]
    assert "</html>" in read(cluster, "status")[0]
    with pytest.raises(urllib.error.HTTPError, match="404"):
        read(cluster, "hpsearch/secrets")
