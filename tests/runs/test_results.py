"""What a run keeps of a result, whatever pickles how: all of it, or all that it can."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import GridSearchCV

from dask_hpsearch import DaskSearchCV, SearchRun
from dask_hpsearch.exceptions import ResultUnreadableError, RunFailedError
from tests.estimators import flowers
from tests.processes import script

if TYPE_CHECKING:
    from pathlib import Path

    from distributed import Client

X, y = flowers()

# Pickled by value by cloudpickle, and by name inside of that, as torch pickles modules.
OF_MAIN = """
import pickle, sys
import numpy as np
from distributed import Client
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import GridSearchCV
from dask_hpsearch import DaskSearchCV, SearchRun, local_cluster
from tests.estimators import flowers

def scale(value):
    return 2 * value

class Net:
    def __init__(self, width, activation=scale):
        self.width, self.activation = width, activation

    def predict(self, X):
        return np.full(len(X), self.activation(self.width) % 3)

class main:  # a name that drivers have too
    pass

class Netted(ClassifierMixin, BaseEstimator):
    def __init__(self, module=Net, width=1, other=main):
        self.module, self.width, self.other = module, width, other

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        self.net_ = self.module(self.width)
        self.other_ = self.other()
        return self

    def predict(self, X):
        return self.net_.predict(X)

    def __getstate__(self):
        state = dict(vars(self))
        for name in ("net_", "other_"):
            if name in state:
                state[name] = pickle.dumps(state[name])
        return state

    def __setstate__(self, state):
        vars(self).update(state)
        for name in ("net_", "other_"):
            if name in state:
                setattr(self, name, pickle.loads(state[name]))

X, y = flowers()
search = GridSearchCV(Netted(), {"width": [0, 1, 2]}, cv=2)

if __name__ == "__main__":
    plain = search.fit(X, y)
    with local_cluster(1, 2, dashboard_address=":0") as cluster:
        with Client(cluster, set_as_default=False) as client:
            ours = DaskSearchCV(search, client=client, store=sys.argv[0] + "-store")
            fitted = ours.fit(X, y)
            run = ours.submit(X, y)
            found = run.result(80)
            slim = run.result(estimator=False)
    for one in (fitted.search_, found, SearchRun.attach(fitted.run_url_).result()):
        assert one.best_params_ == plain.best_params_
        assert type(one.best_estimator_.net_) is Net
        assert type(one.best_estimator_.other_) is main
        assert (one.predict(X) == plain.predict(X)).all()
    assert not hasattr(slim, "best_estimator_")
    assert main.__module__ == "__main__"
    print(fitted.run_url_)
    print(run.url)
"""


def test_a_result_that_names_what_the_script_defines_is_stored(tmp_path: Path) -> None:
    """By ``fit`` and by ``submit``; a process that lacks it has the rest."""
    process = script(OF_MAIN, tmp_path)
    output, errors = process.communicate()
    assert (process.returncode, errors) == (0, "")

    for url in output.split():
        run = SearchRun.attach(url)
        assert run.state == "finished"
        found = run.result()  # what it has by value is found by name
        assert set(found.best_estimator_.predict(X)) <= {0, 1, 2}
        assert run.result(estimator=False).best_params_ == found.best_params_
    assert "Net" not in vars(__import__("__main__"))


class ByName(ClassifierMixin, BaseEstimator):
    """Refers, once fitted, to what another process does not have."""

    def __init__(self, number: int = 0) -> None:
        self.number = number

    def fit(self, X: Any, y: Any) -> Self:
        self.classes_ = np.unique(y)
        self.fitted_ = True
        return self

    def predict(self, X: Any) -> Any:
        return np.full(len(X), self.number % 3)

    def __reduce__(self) -> Any:
        if hasattr(self, "fitted_"):
            return Missing(), ()
        return super().__reduce__()


class Missing:
    """Pickles as a name that is nowhere."""

    def __call__(self) -> Any:
        raise AssertionError

    def __reduce__(self) -> Any:
        return getattr, (os, f"no_such_name_{os.getpid()}")


class Locked(ByName):
    """Cannot be pickled once it is fitted, outside of the slots."""

    def fit(self, X: Any, y: Any) -> Self:
        super().fit(X, y)
        self.lock_ = threading.Lock()
        return self

    def __reduce__(self) -> Any:
        return BaseEstimator.__reduce__(self)


def grid(estimator: Any) -> GridSearchCV:
    """Make a search of three candidates."""
    return GridSearchCV(estimator, {"number": [0, 1, 2]}, cv=2)


@pytest.mark.parametrize("way", ["fit", "submit"])
def test_what_cannot_be_stored_is_left_out_and_said(
    way: str, client: Client, tmp_path: Path
) -> None:
    """The search has ended well: its scores are there, without the estimator."""
    ours = DaskSearchCV(grid(Locked()), client=client, store=tmp_path)
    run = getattr(ours, way)(X, y)
    if way == "fit":
        assert isinstance(run.best_estimator_, Locked)
        run = SearchRun.attach(run.run_url_)

    with pytest.raises(RunFailedError) as caught:
        run.result(60)

    said = str(caught.value)
    assert f"run {run.run_id} is finished, but its result is not in the store: " in said
    assert "cannot pickle '_thread.lock' object" in said
    assert "result(estimator=False) has all but the fitted estimator" in said
    slim = run.result(estimator=False)
    assert slim.best_params_ == run.best()[1]
    assert len(slim.cv_results_["params"]) == 3


def test_a_result_that_names_what_is_missing_here_says_so(
    client: Client, tmp_path: Path
) -> None:
    """Its scores can be read all the same."""
    found = DaskSearchCV(grid(ByName()), client=client, store=tmp_path).fit(X, y)
    run = SearchRun.attach(found.run_url_)

    with pytest.raises(
        ResultUnreadableError, match=r"no_such_name.*import or define it"
    ):
        run.result()

    assert run.result(estimator=False).best_params_ == found.best_params_
