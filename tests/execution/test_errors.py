from __future__ import annotations

import asyncio
import contextlib
import os
import re
import subprocess
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from distributed import Client, LocalCluster
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, make_scorer
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV

from dask_hpsearch import DaskSearchCV, local_cluster
from dask_hpsearch.exceptions import (
    ClientClosedError,
    NoWorkersError,
    StoreError,
    UnpicklableError,
    UnsupportedSearchError,
)
from tests.estimators import Deed, flowers, seen
from tests.oracle.structure import difference
from tests.processes import WAIT_S, busy_slots, is_alive, script, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

X, y = flowers()
SPACE = {"C": [0.1, 1.0]}


def logistic(space: Any = SPACE, **options: Any) -> GridSearchCV:
    """Make a search over logistic regressions."""
    return GridSearchCV(LogisticRegression(max_iter=500), space, cv=2, **options)


@pytest.fixture
def nothing_left_running(client: Client) -> Iterator[None]:
    """After the error the slots are idle, and the client fits as before."""
    yield
    wait_until(lambda: not any(client.run(busy_slots).values()))
    search = GridSearchCV(Deed(client=os.getpid()), {"number": range(3)}, cv=2)
    found = DaskSearchCV(search, client=client).fit(X, y)
    assert difference(search.fit(X, y), found.search_) is None
    threads = [thread.name for thread in threading.enumerate()]
    assert "dask-hpsearch-engine" not in threads


class Locked(LogisticRegression):
    """Holds what cannot be pickled."""

    def __init__(self, C: float = 1.0, lock: Any = None) -> None:
        super().__init__(C=C)
        self.lock = lock

    def __sklearn_clone__(self) -> Locked:
        return self


@pytest.mark.usefixtures("nothing_left_running")
def test_an_unpicklable_estimator_is_named(client: Client) -> None:
    """The message names the part, the reason and the way out."""
    search = GridSearchCV(Locked(lock=threading.Lock()), SPACE, cv=2)

    with pytest.raises(
        UnpicklableError, match=r"the estimator cannot .*lock"
    ) as caught:
        DaskSearchCV(search, client=client).fit(X, y)

    assert "__getstate__" in str(caught.value)


@pytest.mark.usefixtures("nothing_left_running")
def test_an_unpicklable_scorer_is_named(client: Client) -> None:
    """A function that holds a lock, as one from a notebook may."""
    lock = threading.Lock()

    def score(true: Any, predicted: Any) -> float:
        with lock:
            return float(accuracy_score(true, predicted))

    with pytest.raises(UnpicklableError, match=r"scorer cannot be sent .*lock"):
        DaskSearchCV(logistic(scoring=make_scorer(score)), client=client).fit(X, y)


@pytest.mark.usefixtures("nothing_left_running")
def test_an_unpicklable_candidate_is_named(client: Client) -> None:
    """The second candidate holds the lock."""
    search = GridSearchCV(Locked(), {"lock": [None, threading.Lock()]}, cv=2)

    with pytest.raises(UnpicklableError, match=r"candidate 1 \({'lock': .* cannot"):
        DaskSearchCV(search, client=client).fit(X, y)


def test_a_class_defined_where_the_search_is_works(client: Client) -> None:
    """As in a notebook: it travels by value, and so does a scorer."""

    class Majority(ClassifierMixin, BaseEstimator):
        def __init__(self, rank: int = 1) -> None:
            self.rank = rank

        def fit(self, X: Any, y: Any) -> Majority:
            self.classes_, counts = np.unique(y, return_counts=True)
            self.chosen_ = self.classes_[np.argsort(counts)[-self.rank]]
            return self

        def predict(self, X: Any) -> Any:
            return np.full(len(X), self.chosen_)

    def half(true: Any, predicted: Any) -> float:
        return float(np.mean(true == predicted)) / 2

    search = GridSearchCV(
        Majority(), {"rank": [1, 2, 3]}, cv=3, scoring=make_scorer(half)
    )

    found = DaskSearchCV(search, client=client).fit(X, y)

    assert type(found.best_estimator_) is Majority
    assert difference(search.fit(X, y).cv_results_, found.cv_results_) is None


MISSING = """
import os, sys
from pathlib import Path
from distributed import Client
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from dask_hpsearch import DaskSearchCV, exceptions, local_cluster

folder = Path(sys.argv[0]).parent / "later"
folder.mkdir()
(folder / "my_missing_module.py").write_text('''
from sklearn.linear_model import LogisticRegression
class Mine(LogisticRegression):
    pass
def accuracy(estimator, X, y):
    return estimator.score(X, y)
''')
X, y = load_iris(return_X_y=True)
with local_cluster(1, 2, dashboard_address=":0") as cluster:
    with Client(cluster, set_as_default=False) as client:
        client.wait_for_workers(1)
        sys.path.append(str(folder))
        import my_missing_module as mine
        text = (folder / "my_missing_module.py").read_text()
        (folder / "my_missing_module.py").unlink()  # or it would be sent
        for search in (
            GridSearchCV(mine.Mine(max_iter=500), {"C": [0.1, 1]}),
            GridSearchCV(LogisticRegression(), {"C": [1]}, scoring=mine.accuracy),
            GridSearchCV(LogisticRegression(), {"C": [1]}, scoring={"a": mine.accuracy}, refit="a"),
        ):
            try:
                DaskSearchCV(search, client=client).fit(X, y)
            except exceptions.MissingModuleError as error:
                print(error.name, error)
        (folder / "my_missing_module.py").write_text(text)
        client.upload_file(str(folder / "my_missing_module.py"))
        found = DaskSearchCV(GridSearchCV(mine.Mine(max_iter=500), {"C": [0.1, 1]}), client=client)
        print(type(found.fit(X, y).best_estimator_).__name__)
"""


def test_a_module_that_the_workers_lack_is_named(tmp_path: Path) -> None:
    """So is the way out, which works."""
    with script(MISSING, tmp_path) as process:
        output, errors = process.communicate(timeout=WAIT_S)

    assert not errors
    *told, uploaded = output.splitlines()
    assert len(told) == 3
    for line in told:
        assert line.startswith("my_missing_module the workers lack the module")
        assert "client.upload_file('my_missing_module.py')" in line
    assert uploaded == "Mine"


OWN = """
import sys
from pathlib import Path
from distributed import Client
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV
from dask_hpsearch import DaskSearchCV, local_cluster

folder = Path(sys.argv[0]).parent / "later"
package = folder / "my_package"
package.mkdir(parents=True)
(folder / "my_module.py").write_text("import my_package.parts as parts\\nBASE = parts.Base")
(package / "__init__.py").write_text("")
(package / "parts.py").write_text('''
from sklearn.linear_model import LogisticRegression
class Base(LogisticRegression):
    pass
''')
X, y = load_iris(return_X_y=True)
with local_cluster(1, 1, dashboard_address=":0") as cluster:
    with Client(cluster, set_as_default=False) as client:
        client.wait_for_workers(1)
        sys.path.append(str(folder))
        import my_module
        class Mine(my_module.BASE):
            pass
        for kind in (my_module.BASE, Mine):
            search = GridSearchCV(kind(max_iter=500), {"C": [0.1, 1, 2]})
            found = DaskSearchCV(search, client=client).fit(X, y)
            print(found.search_.best_score_ == search.fit(X, y).best_score_)
        cluster.scale(2)
        client.wait_for_workers(2)
        print(len(DaskSearchCV(search, client=client).fit(X, y).cv_results_["params"]))
"""


def test_user_modules_reach_the_workers(tmp_path: Path) -> None:
    """A module and a package beside the notebook need no manual step."""
    with script(OWN, tmp_path) as process:
        output, errors = process.communicate(timeout=WAIT_S)

    assert not errors
    assert output.splitlines() == ["True", "True", "3"]


EDITED = """
import importlib, os, sys
from pathlib import Path
import numpy as np
from distributed import Client
from sklearn.model_selection import GridSearchCV
from dask_hpsearch import DaskSearchCV, local_cluster
import joblib

MINE = '''
from sklearn.base import BaseEstimator
import my_constants
class Constant(BaseEstimator):
    def __init__(self, number=0):
        self.number = number
    def fit(self, X, y):
        return self
    def score(self, X, y):
        return my_constants.BASE + MORE - self.number
def told():
    return my_constants.BASE + MORE
'''

def write(base, more):
    (folder / "my_constants.py").write_text(f"BASE = {base}\\n")
    (folder / "my_estimators.py").write_text(MINE.replace("MORE", str(more)))

def search():
    own = GridSearchCV(my_estimators.Constant(), {"number": [0, 1]}, cv=2)
    return DaskSearchCV(own, client=client).fit(X, y).best_score_

X, y = np.arange(40.0).reshape(20, 2), np.arange(20) % 2
folder = Path(sys.argv[0]).parent / "later"
folder.mkdir()
write(1, 0)
places = {"client": [], "workers": [str(folder)]}[os.environ["SEEN_BY"]]
sys.path[:0] = places
cluster = local_cluster(1, 1, dashboard_address=":0")
sys.path[:0] = [] if places else [str(folder)]
import my_constants, my_estimators
with cluster, Client(cluster, set_as_default=False) as client:
    client.wait_for_workers(1)
    for base, more in ((1, 0), (10, 0), (10, 500), (1, 0)):
        write(base, more)
        importlib.reload(my_constants)
        importlib.reload(my_estimators)
        print(search())
    cluster.scale(2)
    client.wait_for_workers(2)
    print(search())
    with joblib.parallel_config("dask_hpsearch", client=client):
        for base in (7, 80):
            write(base, 0)
            importlib.reload(my_constants)
            print(*joblib.Parallel(n_jobs=2)(joblib.delayed(my_estimators.told)() for _ in "ab"))
"""


@pytest.mark.parametrize("seen_by", ["client", "workers"])
def test_a_module_that_was_edited_is_used_as_it_is_now(
    tmp_path: Path, seen_by: str
) -> None:
    """The module, or one that it imports; whether workers were sent it or see the file."""
    place = {"SEEN_BY": seen_by, "PYTHONDONTWRITEBYTECODE": "1"}
    with script(EDITED, tmp_path, environment=place) as process:
        output, errors = process.communicate(timeout=WAIT_S)

    assert not errors
    assert output.splitlines() == ["1.0", "10.0", "510.0", "1.0", "1.0", "7 7", "80 80"]


@pytest.mark.usefixtures("nothing_left_running")
def test_nan_in_x_fails_as_scikit_learn_says(client: Client) -> None:
    """The estimator's own words reach the user."""
    holed = X.copy()
    holed[::5, 1] = np.nan

    with pytest.raises(ValueError, match="All the 4 fits failed") as caught:
        DaskSearchCV(logistic(), client=client).fit(holed, y)

    assert "Input X contains NaN" in str(caught.value)


@pytest.mark.usefixtures("nothing_left_running")
@pytest.mark.parametrize(
    ("search", "data", "message"),
    [
        (logistic(), (X, y[:-1]), "inconsistent numbers of samples"),
        (logistic({"C": []}), (X, y), "Need at least one non-empty|empty"),
        (logistic([]), (X, y), "No fits were performed|empty"),
        (
            RandomizedSearchCV(LogisticRegression(), {"C": []}, cv=2),
            (X, y),
            "empty|non-empty|at least one",
        ),
    ],
)
def test_wrong_input_fails_as_scikit_learn_says(
    search: Any, data: tuple[Any, Any], message: str, client: Client
) -> None:
    """The same error, in the same words."""
    with pytest.raises(Exception, match=message) as plain:
        search.fit(*data)

    with pytest.raises(plain.type, match=re.escape(str(plain.value))):
        DaskSearchCV(search, client=client).fit(*data)


def test_a_closed_client_is_refused(cluster: LocalCluster) -> None:
    """The message says to connect a new one."""
    closed = Client(cluster, set_as_default=False)
    closed.close()

    with pytest.raises(ClientClosedError, match="is closed: connect a new Client"):
        DaskSearchCV(logistic(), client=closed).fit(X, y)


def test_an_asynchronous_client_is_refused(cluster: LocalCluster) -> None:
    """The message says which kind is needed."""

    async def fit() -> None:
        async with Client(
            cluster.scheduler_address, asynchronous=True, set_as_default=False
        ) as client:
            DaskSearchCV(logistic(), client=client).fit(X, y)

    with pytest.raises(ClientClosedError, match="asynchronous=False"):
        asyncio.run(fit())


def test_no_worker_in_time_is_an_error() -> None:
    """A cluster without workers is told after ``worker_timeout``, not waited for."""
    with (
        local_cluster(0, 1, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        ours = DaskSearchCV(logistic(), client=client, worker_timeout=1)
        with pytest.raises(NoWorkersError, match=r"within 1 s: start workers"):
            ours.fit(X, y)
        with pytest.raises(NoWorkersError, match=r"within 1 s: start workers"):
            ours.set_params(backend="joblib").fit(X, y)

        cluster.scale(1)
        found = ours.set_params(backend="auto", worker_timeout=WAIT_S).fit(X, y)
        assert found.best_params_ == logistic().fit(X, y).best_params_


@pytest.mark.parametrize("lost", ["client", "cluster"])
def test_losing_the_scheduler_ends_the_search(lost: str, tmp_path: Path) -> None:
    """The search raises instead of waiting for what cannot come."""
    log = str(tmp_path / "fits.log")
    deed = Deed(log=log, hold_after=1, client=os.getpid())
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(local_cluster(1, 2, dashboard_address=":0"))
        client = stack.enter_context(Client(cluster, set_as_default=False))

        def lose() -> None:
            wait_until(lambda: seen(log, "wait"))
            (client if lost == "client" else cluster).close()

        thread = threading.Thread(target=lose)
        thread.start()
        search = GridSearchCV(deed, {"number": range(6)}, cv=2)
        with pytest.raises(ClientClosedError):
            DaskSearchCV(search, client=client).fit(X, y)
        thread.join()
    pids = {entry["pid"] for entry in seen(log, "start")}
    wait_until(lambda: not any(map(is_alive, pids)))


@pytest.mark.parametrize("name", ["max_time", "fit_timeout", "worker_timeout"])
@pytest.mark.parametrize("value", [0, -1, "10", True, float("nan")])
def test_seconds_that_make_no_sense_are_refused(
    name: str, value: Any, client: Client
) -> None:
    """The message names the setting and its value."""
    ours = DaskSearchCV(logistic(), client=client, **{name: value})

    with pytest.raises(ValueError, match=f"{name} must be a positive number.*{value}"):
        ours.fit(X, y)


def test_an_unknown_backend_is_refused(client: Client) -> None:
    """The message lists what there is."""
    ours = DaskSearchCV(logistic(), client=client, backend="ray")  # type: ignore[arg-type]

    with pytest.raises(ValueError, match="'trials', 'dask-ml', 'joblib', got 'ray'"):
        ours.fit(X, y)


@pytest.mark.parametrize("search", [GridSearchCV, "grid", None, object()])
def test_what_is_no_search_is_refused(search: Any, client: Client) -> None:
    """A class instead of an object, a name, nothing."""
    with pytest.raises(UnsupportedSearchError, match="search must be a search object"):
        DaskSearchCV(search, client=client).fit(X, y)


def test_a_store_elsewhere_is_refused(client: Client) -> None:
    """The message names it."""
    ours = DaskSearchCV(logistic(), client=client, store="s3://bucket/folder")

    with pytest.raises(ValueError, match="'s3://bucket/folder'"):
        ours.fit(X, y)


@pytest.mark.usefixtures("nothing_left_running")
def test_a_store_that_cannot_be_written_is_told(client: Client, tmp_path: Path) -> None:
    """A file is where the folder should be: nothing can be written below it."""
    (tmp_path / "file").touch()
    ours = DaskSearchCV(logistic(), client=client, store=tmp_path / "file" / "store")

    with pytest.raises(
        StoreError, match=r"cannot write .* MiB of data to .*/file/store"
    ):
        ours.fit(X, y)


@pytest.mark.usefixtures("nothing_left_running")
def test_a_full_store_is_told_and_left_clean(client: Client, tmp_path: Path) -> None:
    """The message says how much there was to write and what to do; no half file stays."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted here")
    try:
        large = np.tile(X, (100, 1)), np.tile(y, 100)
        with pytest.raises(StoreError, match=r"No space left .* free some space"):
            DaskSearchCV(logistic(), client=client, store=folder).fit(*large)
        left = [path for path in folder.rglob("*") if path.is_file()]
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)  # noqa: S607

    assert not [path for path in left if "partial" in path.name]


def test_a_setting_that_would_do_nothing_is_refused(client: Client) -> None:
    """``max_time`` needs the engine."""
    ours = DaskSearchCV(logistic(), client=client, backend="joblib", max_time=3)

    with pytest.raises(ValueError, match="max_time=3 needs backend='trials'"):
        ours.fit(X, y)
