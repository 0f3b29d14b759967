from __future__ import annotations

import os
import pickle
import signal
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from distributed import Client
from sklearn.base import clone
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    ShuffleSplit,
    cross_validate,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from dask_hpsearch import DaskSearchCV, local_cluster
from dask_hpsearch.exceptions import SearchStopped, SearchStoppedWarning
from tests.estimators import Deed, flowers, seen, unfinished
from tests.oracle.structure import difference
from tests.processes import is_alive, script, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

X, y = flowers()
SLOTS = 3
GONE_WITHIN_S = 2.0
NUMBERS = range(9)
# Searches and the number of ended fits after which further ones never end.
HOLD_AFTER = {"grid": 7, "halving": 18 + 3, "bayes": 2 * 2 * 2 + 3, "nothing": 0}


def make(kind: str, log: str) -> Any:
    """Make a search whose fits hold once a part of them has ended."""
    deed = Deed(log=log, hold_after=HOLD_AFTER[kind], client=os.getpid())
    if kind == "halving":
        return HalvingGridSearchCV(
            deed, {"number": NUMBERS}, cv=2, factor=3, min_resources=10, random_state=0
        )
    if kind == "bayes":
        from skopt import BayesSearchCV

        return BayesSearchCV(
            deed,
            {"number": (0.0, 40.0)},
            n_iter=12,
            n_points=2,
            cv=2,
            random_state=0,
            optimizer_kwargs={"n_initial_points": 20},  # no model: it is slow
        )
    return GridSearchCV(deed, {"number": NUMBERS}, cv=2)


def holds(log: str) -> bool:
    """Whether the search has come to where it will not go on, and the client knows it.

    Workers report what they have every half a second.
    """
    return bool(seen(log, "wait")) and time.time() - Path(log).stat().st_mtime > 2


def fit(client: Client, kind: str, log: str, **settings: Any) -> dict[str, Any]:
    """Fit, and tell what there is afterwards."""
    caught: list[warnings.WarningMessage]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            # skopt's own loop asks what a plain fit asks: the whole to compare with.
            found = DaskSearchCV(
                make(kind, log), client=client, bayes_async=False, **settings
            ).fit(X, y)
        except (KeyboardInterrupt, SearchStopped) as error:
            found = error
    running = {entry["pid"] for entry in unfinished(log)}
    wait_until(lambda: not any(map(is_alive, running)), within_s=GONE_WITHIN_S)
    again = DaskSearchCV(
        GridSearchCV(Deed(client=os.getpid()), {"number": NUMBERS}, cv=2), client=client
    ).fit(X, y)
    left = {
        "warnings": [(entry.category, str(entry.message)) for entry in caught],
        "running": running,
        "again": again.search_,
    }
    if isinstance(found, BaseException):
        return left | {"error": type(found), "message": str(found)}
    return left | {"stopped": found.stopped_, "search": found.search_}


def check_partial(kind: str, left: dict[str, Any], reason: str) -> None:
    """Assert that a stopped search is what its finished candidates make it."""
    assert left["stopped"] == reason
    (category, message), *others = left["warnings"]
    assert category is SearchStoppedWarning
    assert f"the search was stopped ({reason})" in message
    assert not others
    assert len(left["running"]) <= SLOTS
    assert left["running"] or reason == "max_time"  # that may come between two fits
    search = left["search"]
    done = search.cv_results_["params"]
    assert 0 < len(done) < len(plain(kind).cv_results_["params"])
    deed = search.estimator.set_params(client=os.getpid(), log="")
    best = clone(deed).set_params(**search.best_params_).fit(X, y)
    assert best.cut_ == search.best_estimator_.cut_
    np.testing.assert_array_equal(best.predict(X), search.predict(X))
    assert search.best_params_ == done[search.best_index_]
    assert left["again"].best_params_ == plain("grid").best_params_
    if kind == "grid":
        space = [{"number": [candidate["number"]]} for candidate in done]
        expected = GridSearchCV(deed, space, cv=2).fit(X, y)
        assert difference(expected.cv_results_, search.cv_results_) is None
        assert expected.best_params_ == search.best_params_
    else:
        check_rows(plain(kind).cv_results_, search.cv_results_)


def check_rows(plain: dict[str, Any], found: dict[str, Any]) -> None:
    """Assert that rows of a part are rows of the whole, times and ranks apart."""
    assert list(plain) == list(found)
    names = [name for name in plain if "time" not in name and "rank" not in name]
    whole = zip(*(plain[name] for name in names), strict=True)
    part = zip(*(found[name] for name in names), strict=True)
    assert all(
        row in whole for row in part
    )  # in this order: `in` uses up what it passes


def plain(kind: str) -> Any:
    """Fit in this process, where nothing holds."""
    return make(kind, "").fit(X, y)


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """One worker, which is there."""
    with (
        local_cluster(1, SLOTS, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        client.wait_for_workers(1)
        yield client


@pytest.mark.parametrize("kind", ["grid", "halving", "bayes"])
def test_max_time_ends_a_search_with_what_it_has(
    kind: str, client: Client, tmp_path: Path
) -> None:
    """Finished candidates and the best of them stay, running fits end."""
    left = fit(client, kind, str(tmp_path / "fits.log"), max_time=4)

    check_partial(kind, left, "max_time")


def test_a_search_that_ends_in_time_is_not_stopped(client: Client) -> None:
    """``max_time`` that is not reached changes nothing."""
    search = GridSearchCV(Deed(client=os.getpid()), {"number": NUMBERS}, cv=2)

    found = DaskSearchCV(search, client=client, max_time=600).fit(X, y)

    assert found.stopped_ is None
    assert difference(search.fit(X, y), found.search_) is None


def test_max_time_before_any_candidate_is_an_error(
    client: Client, tmp_path: Path
) -> None:
    """There is nothing to hand back."""
    left = fit(client, "nothing", str(tmp_path / "fits.log"), max_time=1)

    assert left["error"] is SearchStopped
    assert "before any candidate had finished: give it more time" in left["message"]


def in_a_pipeline(found: DaskSearchCV) -> None:
    """Fit as the last step."""
    make_pipeline(StandardScaler(), found).fit(X, y)


def across_folds(found: DaskSearchCV) -> None:
    """Fit once, by scikit-learn."""
    cross_validate(found, X, y, cv=ShuffleSplit(1, random_state=0))


def by_a_thread(found: DaskSearchCV) -> None:
    """Fit in another thread."""
    with ThreadPoolExecutor(1) as threads:
        threads.submit(lambda: found.fit(X, y)).result()


@pytest.mark.parametrize("way", [in_a_pipeline, across_folds, by_a_thread])
def test_the_warning_of_a_stop_points_at_the_users_line(
    way: Callable[[DaskSearchCV], None], client: Client, tmp_path: Path
) -> None:
    """Whatever of scikit-learn and joblib is between that and the search."""
    search = make("grid", str(tmp_path / "fits.log"))
    found = DaskSearchCV(search, client=client, max_time=3, store=tmp_path)

    with pytest.warns(SearchStoppedWarning) as caught:
        way(found)

    (warning,) = caught
    code = way.__code__
    lines = range(code.co_firstlineno, code.co_firstlineno + 5)
    assert warning.filename == __file__
    assert warning.lineno in lines


INTERRUPTED = """
import os, pickle, signal, sys, threading
from pathlib import Path
from distributed import Client
from dask_hpsearch import local_cluster
from tests.execution import test_stopping
from tests.processes import wait_until

folder = Path(sys.argv[0]).parent

def interrupt(log):
    wait_until(lambda: test_stopping.holds(log))
    os.kill(os.getpid(), signal.SIGINT)

with local_cluster(1, test_stopping.SLOTS, dashboard_address=":0") as cluster:
    with Client(cluster, set_as_default=False) as client:
        for name in ("grid", "halving", "bayes", "nothing", "timer"):
            kind = "grid" if name == "timer" else name
            log = str(folder / f"{name}.log")
            if name == "timer":
                threading.Thread(target=interrupt, args=(log,)).start()
            left = test_stopping.fit(client, kind, log)
            (folder / f"{name}.part").write_bytes(pickle.dumps(left))
            (folder / f"{name}.part").rename(folder / f"{name}.pkl")
print("ended")
"""


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What searches left that were interrupted in an interpreter of their own.

    SIGINT goes to the whole process group, as a terminal's Ctrl-C does; to the process
    alone in the last case, "timer".
    """
    folder = tmp_path_factory.mktemp("interrupted")
    results = {}
    with script(INTERRUPTED, folder) as process:
        try:
            for name in ("grid", "halving", "bayes", "nothing", "timer"):
                if name != "timer":
                    log = str(folder / f"{name}.log")
                    wait_until(lambda log=log: holds(log) or process.poll() is not None)
                    os.killpg(process.pid, signal.SIGINT)
                path = folder / f"{name}.pkl"
                wait_until(
                    lambda path=path: path.exists() or process.poll() is not None
                )
                results[name] = pickle.loads(path.read_bytes())
        except BaseException:
            process.kill()
            print(process.communicate())  # noqa: T201 (shown if it fails)
            raise
        output, errors = process.communicate()
    results["end"] = {"output": output, "errors": errors, "code": process.returncode}
    return results


@pytest.mark.parametrize("name", ["grid", "halving", "bayes", "timer"])
def test_ctrl_c_ends_a_search_with_what_it_has(
    name: str, interrupted: dict[str, dict[str, Any]]
) -> None:
    """Finished candidates and the best of them stay, running fits end."""
    kind = "grid" if name == "timer" else name

    check_partial(kind, interrupted[name], "interrupted")


def test_ctrl_c_before_any_candidate_goes_on_as_it_came(
    interrupted: dict[str, dict[str, Any]],
) -> None:
    """There is nothing to hand back: a KeyboardInterrupt like any other."""
    assert interrupted["nothing"]["error"] is KeyboardInterrupt
    assert not interrupted["nothing"]["warnings"]


def test_interrupted_searches_leave_a_quiet_interpreter(
    interrupted: dict[str, dict[str, Any]],
) -> None:
    """It ends by itself, and nothing is written but its own words."""
    assert interrupted["end"] == {"output": "ended\n", "errors": "", "code": 0}


def test_a_halving_search_counts_what_it_has(
    interrupted: dict[str, dict[str, Any]],
) -> None:
    """Its first rung is whole, its second in part."""
    search = interrupted["halving"]["search"]

    rungs = search.cv_results_["iter"].tolist()
    assert search.n_iterations_ == 2
    assert search.n_candidates_ == [rungs.count(0), rungs.count(1)]
    assert search.n_candidates_[0] == len(NUMBERS)
    assert len(search.n_resources_) == 2
