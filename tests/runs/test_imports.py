"""Looking at a run imports nothing that runs searches."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

from dask_hpsearch.data import DataStore
from dask_hpsearch.stores import open_store
from tests.estimators import Deed, flowers
from tests.runs.recorded import begun

if TYPE_CHECKING:
    from pathlib import Path

from sklearn.model_selection import GridSearchCV

# The fit stack, and what only a driver or a client of a cluster needs.
FORBIDDEN = {
    "dask",
    "distributed",
    "sklearn.model_selection",
    "dask_hpsearch.execution",
    "dask_hpsearch.joblib_backend",
    "dask_hpsearch.engine",
    "dask_hpsearch.recorder",
    "dask_hpsearch.strategies",
    "dask_hpsearch.slots",
    "dask_hpsearch.data",
    "dask_hpsearch.clusters",
    "dask_hpsearch.runs.submit",
    "dask_hpsearch.runs.driver",
    "dask_hpsearch.runs.launch.launch",
}
LOOK = """
import json, sys
from dask_hpsearch import SearchRun

run = SearchRun.attach(sys.argv[1])
run.state, run.progress(), run.trials(), run.best(), run.logs(), run.done()
repr(run), run._repr_html_()
try:
    run.wait(0.1, progress=True)
except TimeoutError:
    pass
SearchRun.list(sys.argv[1].rpartition("/runs/")[0])
run.cancel()
print(json.dumps(sorted(sys.modules)))
"""


def test_looking_at_a_run_does_not_import_the_fit_stack(tmp_path: Path) -> None:
    """Nor does cancelling it; starting a driver does."""
    search = GridSearchCV(Deed(), {"number": [1, 2]}, cv=2)
    with DataStore(tmp_path) as data_store:
        run = begun(search, *flowers(), open_store(tmp_path), data_store)

    done = subprocess.run(
        [sys.executable, "-c", LOOK, run.store.url],
        capture_output=True,
        check=True,
        text=True,
    )

    modules = set(json.loads(done.stdout.splitlines()[-1]))
    assert "dask_hpsearch.runs.run" in modules
    assert not FORBIDDEN & modules
