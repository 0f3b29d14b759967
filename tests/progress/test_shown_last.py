"""What is shown last of a search is what its results say."""

from __future__ import annotations

import contextlib
import io
import os
import re
from typing import TYPE_CHECKING, Any

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    RandomizedSearchCV,
)

from dask_hpsearch import DaskSearchCV, SearchRun
from dask_hpsearch.exceptions import SearchStoppedWarning
from dask_hpsearch.progress import text
from tests.estimators import Deed, flowers
from tests.terminal import Terminal

if TYPE_CHECKING:
    from pathlib import Path

    from distributed import Client

X, y = flowers()
SPACE = {"number": list(range(8))}


def second(results: dict[str, Any]) -> int:
    """Choose a candidate that has not the best score, as a callable refit may."""
    return int(np.argsort(results["mean_test_score"])[1])


def second_of_two(results: dict[str, Any]) -> int:
    """Choose so where several scores count."""
    return int(np.argsort(results["mean_test_accuracy"])[1])


def bayes(**options: Any) -> Any:
    """Make a search that asks for one candidate after the other."""
    from skopt import BayesSearchCV

    settings = {"n_initial_points": 20}  # no model: it is slow
    return BayesSearchCV(
        Deed(client=os.getpid()),
        {"number": (0.0, 40.0)},
        n_iter=6,
        cv=2,
        random_state=0,
        optimizer_kwargs=settings,
        **options,
    )


def searches() -> dict[str, Any]:
    """Make short searches of every kind."""
    deed = Deed(client=os.getpid())
    two = ["accuracy", "balanced_accuracy"]
    some_fail = {"number": [0, 1, 2, 3], "deed": ["raise", "fit"]}
    # Errors that count 0 are the best of scores that are below it.
    loss = "neg_mean_squared_error"
    return {
        "grid": GridSearchCV(deed, SPACE, cv=2),
        "many splits": GridSearchCV(deed, SPACE, cv=11),
        "randomized": RandomizedSearchCV(deed, SPACE, n_iter=5, cv=2, random_state=0),
        "halving": HalvingGridSearchCV(
            deed, SPACE, cv=2, factor=2, min_resources=10, random_state=0
        ),
        "bayes": bayes(),
        "bayes, several at once": bayes(n_points=3),
        "several scores": GridSearchCV(deed, SPACE, cv=2, scoring=two, refit=two[1]),
        "several scores, no refit": GridSearchCV(
            deed, SPACE, cv=2, scoring=two, refit=False
        ),
        "several scores, own choice": GridSearchCV(
            deed, SPACE, cv=2, scoring=two, refit=second_of_two
        ),
        "own choice": GridSearchCV(deed, SPACE, cv=2, refit=second),
        "no refit": GridSearchCV(deed, SPACE, cv=2, refit=False),
        "failing": GridSearchCV(deed, some_fail, cv=2),
        "failing for 0": GridSearchCV(
            deed, some_fail, cv=2, error_score=0, scoring=loss
        ),
    }


KINDS = list(searches())


def fits_of(search: Any) -> int:
    """Count the fits that a search's results cover."""
    return len(search.cv_results_["params"]) * search.n_splits_


def best_words(search: Any) -> str:
    """Write the best candidate as it should be shown."""
    params = getattr(search, "best_params_", None)
    if params is None:
        return ""
    score = getattr(search, "best_score_", None)
    if score is None and "mean_test_score" in search.cv_results_:
        score = search.cv_results_["mean_test_score"][search.best_index_]
    shown = "" if score is None else f" {score:.4f}"
    return f"; best{shown}: {text.shorten_params(params)}"


def check_last(line: str, search: Any) -> None:
    """Assert that a line says of a search what its results say."""
    n_fits = fits_of(search)
    deeds = np.asarray(search.cv_results_.get("param_deed", []))
    failed = int(np.sum(deeds == "raise")) * search.n_splits_
    words = f"Search done: {n_fits} fits" + (f", {failed} failed" if failed else "")
    assert line.startswith(f"{words}, ")
    assert re.sub(r"^[^;]*", "", line) == best_words(search)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.FitFailedWarning")
@pytest.mark.filterwarnings("ignore:One or more of the test scores:UserWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_the_last_line_says_what_the_results_say(
    kind: str, client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a terminal, in a file, and read from the run by any other process."""
    terminal = Terminal()
    makes = {"client": client, "store": tmp_path, "progress": True}

    with contextlib.redirect_stderr(terminal.stream):
        in_terminal = DaskSearchCV(searches()[kind], **makes).fit(X, y)
    in_file = DaskSearchCV(searches()[kind], **makes).fit(X, y)

    check_last(last_of(terminal.close()), in_terminal.search_)
    check_last(last_of(capsys.readouterr().err), in_file.search_)
    run = SearchRun.attach(in_file.run_url_)
    check_last(text.summary(run.progress()), in_file.search_)
    score, params = run.best()
    assert params == getattr(in_file.search_, "best_params_", None)
    assert score == getattr(in_file.search_, "best_score_", score)


def last_of(shown: str) -> str:
    """Return the last line, without what moves the cursor."""
    lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown).split("Search done: ")
    return "Search done: " + lines[-1].strip()


@pytest.mark.parametrize("kind", ["grid", "halving"])
def test_a_search_that_is_stopped_shows_what_it_has(
    kind: str, client: Client, tmp_path: Path
) -> None:
    """And where its run is, with the command that goes on."""
    deed = Deed(client=os.getpid(), log=str(tmp_path / "log"), hold_after=11)
    search: Any = GridSearchCV(deed, SPACE, cv=2)
    if kind == "halving":
        search = HalvingGridSearchCV(
            deed, {"number": [0, 1, 2, 3]}, cv=2, factor=2, min_resources=20
        )
    errors = io.StringIO()

    with (
        contextlib.redirect_stderr(errors),
        pytest.warns(SearchStoppedWarning, match="stopped") as caught,
    ):
        found = DaskSearchCV(
            search, client=client, store=tmp_path, progress=True, max_time=4
        ).fit(X, y)

    *_, summary, hint = errors.getvalue().splitlines()
    call = f"resume it with SearchRun.attach({found.run_url_!r}).resume()"
    run = SearchRun.attach(found.run_url_)
    done = run.progress().fits_done  # with those of candidates that are not complete
    assert fits_of(found.search_) <= done
    assert summary.startswith(f"Search stopped (max_time): {done} of ")
    assert summary.endswith(best_words(found.search_))
    assert hint == call
    assert call in str(caught[0].message)
    assert text.summary(run.progress()).startswith(
        f"Search stopped (max_time): {done} of "
    )
    assert run.best() == (found.best_score_, found.best_params_)


CELL = """
import os
from dask_hpsearch import DaskSearchCV, local_cluster
from dask_hpsearch.progress import text
from sklearn.model_selection import GridSearchCV
from tests.estimators import Deed, flowers

with local_cluster(1, 2, dashboard_address=":0") as cluster, cluster.get_client() as client:
    search = GridSearchCV(Deed(client=os.getpid()), {"number": list(range(8))}, cv=2)
    found = DaskSearchCV(search, client=client, progress=True).fit(*flowers())
"""


def test_a_notebook_shows_last_what_the_results_say() -> None:
    """In its block, which no later update overtakes."""
    cells = [nbformat.v4.new_code_cell(CELL)]
    cells.append(nbformat.v4.new_code_cell("print(found.best_score_)"))
    cells.append(nbformat.v4.new_code_cell("print(found.best_params_['number'])"))
    notebook = nbformat.v4.new_notebook(cells=cells)

    NotebookClient(notebook, timeout=100, kernel_name="python3").execute()

    blocks = [one for one in notebook.cells[0].outputs if "data" in one]
    score, number = (cell.outputs[0]["text"] for cell in notebook.cells[1:])
    said = blocks[-1]["data"]["text/plain"]
    assert said.startswith("Search done: 16 fits, ")
    assert said.endswith(f"best {float(score):.4f}: number={number.strip()}")
