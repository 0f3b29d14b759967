"""A challenger replaces the champion only if it is better."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.datasets import load_diabetes, load_iris
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.tree import DecisionTreeClassifier

from dask_hpsearch import (
    DaskSearchCV,
    SearchRun,
    champion_card,
    champion_history,
    cli,
    load_champion,
    promote,
)
from dask_hpsearch.exceptions import (
    ChampionNotFoundError,
    PromotionError,
    UnpicklableError,
)
from tests.models.contenders import X, guess, y

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from distributed import Client

FEW: dict[str, Any] = {"n_resamples": 200}


def test_the_first_challenger_becomes_the_champion(tmp_path: Path) -> None:
    """There is nothing to compare it with."""
    found = promote(guess(0.6), X, y, to=tmp_path / "churn", **FEW)

    assert (found.promoted, found.version) == (True, 1)
    assert found.scores == {"challenger": pytest.approx(0.6), "champion": None}
    assert (found.gain, found.interval) == (None, None)
    assert repr(found) == (
        "<Promotion: promoted, champion is version 1: there was no champion>"
    )
    np.testing.assert_array_equal(
        load_champion(tmp_path / "churn").predict(X), guess(0.6).predict(X)
    )


@pytest.mark.parametrize("scoring", [None, "roc_auc", "neg_log_loss", "f1"])
def test_a_better_challenger_replaces_the_champion(
    scoring: str | None, tmp_path: Path
) -> None:
    """By any scorer; the replaced version is kept."""
    promote(guess(0.6), X, y, to=tmp_path / "churn", scoring=scoring)

    found = promote(guess(0.8), X, y, to=tmp_path / "churn", scoring=scoring, **FEW)

    assert (found.promoted, found.version) == (True, 2)
    assert found.gain is not None
    assert found.interval is not None
    assert 0 < found.interval[0] < found.gain < found.interval[1]
    assert load_champion(tmp_path / "churn").right == 0.8
    assert load_champion(tmp_path / "churn", version=1).right == 0.6


@pytest.mark.parametrize("right", [0.5, 0.6, 0.605])
def test_a_challenger_that_is_not_surely_better_does_not(
    right: float, tmp_path: Path
) -> None:
    """A worse one, an equal one, or one that is right on two rows more."""
    promote(guess(0.6), X, y, to=tmp_path / "churn")
    before = sorted(path.name for path in tmp_path.rglob("*"))

    found = promote(guess(right), X, y, to=tmp_path / "churn", **FEW)

    assert (found.promoted, found.version) == (False, 1)
    assert "is not above 0" in found.reason
    assert load_champion(tmp_path / "churn").right == 0.6
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_the_gain_and_its_lower_bound_must_exceed_the_minimum(tmp_path: Path) -> None:
    """A negative minimum lets a slightly worse model in; minus infinity lets any in."""
    url = tmp_path / "churn"
    promote(guess(0.6), X, y, to=url)

    assert not promote(guess(0.7), X, y, to=url, min_gain=0.2, **FEW).promoted
    narrow = promote(guess(0.7), X, y, to=url, min_gain=0.08, **FEW)
    assert not narrow.promoted
    assert "whose lower bound is not above 0.08" in narrow.reason
    assert promote(guess(0.7), X, y, to=url, min_gain=0.05, **FEW).promoted
    assert promote(guess(0.69), X, y, to=url, min_gain=-0.05, **FEW).promoted
    assert promote(guess(0.1), X, y, to=url, min_gain=-math.inf, **FEW).promoted
    assert [card.version for card in champion_history(url)] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"min_gain": math.nan}, "min_gain must be a finite number"),
        ({"confidence": 95}, "confidence must be between 0 and 1, as 0.95, got 95"),
        ({"n_resamples": 0}, "n_resamples must be a positive integer, got 0"),
        ({"scoring": ["accuracy", "f1"]}, "scoring must be one scorer"),
    ],
)
def test_invalid_options_are_refused(
    options: dict[str, Any], said: str, tmp_path: Path
) -> None:
    """Before anything is read or written."""
    with pytest.raises(ValueError, match=said):
        promote(guess(0.6), X, y, to=tmp_path / "churn", **options)

    assert not (tmp_path / "churn").exists()


def without_refit() -> GridSearchCV:
    """Make a fitted search that has no model."""
    search = GridSearchCV(DecisionTreeClassifier(), {"max_depth": [1]}, refit=False)
    return search.fit(X, y)


def of_three_classes() -> DecisionTreeClassifier:
    """Make a model that knows one class more."""
    more = np.where(np.arange(len(y)) % 3 == 0, 2, y)
    return DecisionTreeClassifier().fit(X, more)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda: {"X_holdout": X[:0], "y_holdout": y[:0]}, "the holdout has no rows"),
        (lambda: {"y_holdout": y[:-1]}, "X has 400, y has 399"),
        (lambda: {"y_holdout": np.where(y, np.nan, 0.0)}, "has 200 missing values"),
        (lambda: {"y_holdout": None}, "y_holdout must be the target values"),
        (
            lambda: {"X_holdout": np.column_stack([X, X])},
            "trained on 2 features, but the holdout has 4",
        ),
        (lambda: {"challenger": LogisticRegression()}, "must be a fitted estimator"),
        (lambda: {"challenger": without_refit()}, "refit=False"),
        (
            lambda: {"scoring": lambda *_: math.nan},
            "the score of the challenger on the holdout is nan",
        ),
        (
            lambda: {"challenger": guess(0.9, fails="out of order")},
            "cannot be scored on the holdout: RuntimeError: out of order",
        ),
        (
            lambda: {"challenger": of_three_classes()},
            r"the challenger knows 3 classes, .* the champion knows 2",
        ),
        (
            lambda: {"challenger": Ridge().fit(X, y), "scoring": "r2"},
            "the challenger is no classifier, but the champion is a class",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(
    change: Callable[[], dict[str, Any]], said: str, tmp_path: Path
) -> None:
    """By an error that says why; the champion and its folder stay as they are."""
    url = tmp_path / "churn"
    promote(guess(0.6), X, y, to=url)
    before = sorted(path.name for path in tmp_path.rglob("*"))
    call = {"challenger": guess(0.9), "X_holdout": X, "y_holdout": y, **FEW}

    with pytest.raises(PromotionError, match=said):
        promote(**(call | change()), to=url)

    assert sorted(path.name for path in tmp_path.rglob("*")) == before
    assert load_champion(url).right == 0.6


def test_a_champion_that_fails_is_replaced_only_on_request(tmp_path: Path) -> None:
    """The error names the way."""
    url = tmp_path / "churn"
    broken = guess(0.9)
    broken.predict_proba = None
    promote(broken, X, y, to=url)

    with pytest.raises(
        PromotionError, match=r"the champion, .* cannot be scored"
    ) as by:
        promote(guess(0.8), X, y, to=url, scoring="neg_log_loss")
    assert "min_gain=-math.inf" in "".join(by.value.__notes__)

    found = promote(
        guess(0.8), X, y, to=url, scoring="neg_log_loss", min_gain=-math.inf
    )
    assert found.promoted
    assert "could not be compared (PromotionError)" in found.reason
    assert load_champion(url).right == 0.8


def test_a_challenger_that_cannot_be_pickled_leaves_nothing(tmp_path: Path) -> None:
    """No folder is made."""
    model = guess(0.9)
    model.lock = __import__("threading").Lock()

    with pytest.raises(UnpicklableError, match="the challenger cannot be pickled"):
        promote(model, X, y, to=tmp_path / "churn")

    assert not (tmp_path / "churn").exists()


def test_regression_text_labels_tables_and_sparse_rows(tmp_path: Path) -> None:
    """As scikit-learn takes them."""
    data, target = load_diabetes(return_X_y=True, as_frame=True)
    poor, good = (Ridge(alpha).fit(data, target) for alpha in (1e3, 0.1))
    promote(poor, data, target, to=tmp_path / "progress")
    found = promote(good, data, target, to=tmp_path / "progress", **FEW)
    assert (found.promoted, found.metric) == (True, "r2")

    iris, numbers = load_iris(return_X_y=True)
    kinds = np.array(["setosa", "versicolor", "virginica"])[numbers]
    model = LogisticRegression(max_iter=1000).fit(iris, kinds)
    rows = sparse.csr_matrix(iris)
    assert promote(model, rows, list(kinds), to=tmp_path / "iris").promoted
    assert not promote(
        model, pd.DataFrame(iris).to_numpy(), pd.Series(kinds), to=tmp_path / "iris"
    ).promoted
    assert champion_card(tmp_path / "iris").model["classes"] == [
        "setosa",
        "versicolor",
        "virginica",
    ]


def test_without_a_champion_loading_says_so(tmp_path: Path) -> None:
    """An empty history is none."""
    with pytest.raises(ChampionNotFoundError, match="make the first one with promote"):
        load_champion(tmp_path / "churn")
    assert champion_history(tmp_path / "churn") == []
    promote(guess(0.6), X, y, to=tmp_path / "churn")
    with pytest.raises(
        ChampionNotFoundError, match=r"no version 7 .* versions are 1\n"
    ):
        champion_card(tmp_path / "churn", version=7)


def test_a_search_is_judged_by_its_own_scorer(tmp_path: Path) -> None:
    """Of several, by that of refit; the card has what is known of the search."""
    search = GridSearchCV(
        DecisionTreeClassifier(random_state=0),
        {"max_depth": [1, 2]},
        scoring=["accuracy", "neg_log_loss"],
        refit="neg_log_loss",
    ).fit(X, y)

    found = promote(search, X, y, to=tmp_path / "churn")
    card = champion_card(tmp_path / "churn")

    assert found.metric == card.metric == "neg_log_loss"
    assert card.origin["search"]["best_params"] == search.best_params_
    assert card.origin["search"]["n_candidates"] == 2
    assert card.model["params"]["max_depth"] == search.best_params_["max_depth"]


def test_a_run_brings_the_pins_of_its_data(
    client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the run, its URL, the fitted search, or from a terminal with files."""
    tree = DecisionTreeClassifier(random_state=0)
    search = GridSearchCV(tree, {"max_depth": [1, 2]}, cv=2, scoring="f1")
    ours = DaskSearchCV(
        search, client=client, store=tmp_path / "store", task_name="churn of May"
    ).fit(X, y)
    (run,) = SearchRun.list(tmp_path / "store")

    for source in (run, run.url, ours):
        url = tmp_path / type(source).__name__ / "churn"
        assert promote(source, X, y, to=url).metric == "f1"
        card = champion_card(url)
        assert card.origin["run"]["run_id"] == run.run_id
        assert card.origin["run"]["data"]["X"] == run.data_pins["X"]
        assert f"# {card.name}, version 1\n" in card.to_markdown()
        assert run.run_id in card.to_markdown()

    np.save(tmp_path / "X.npy", X)
    np.save(tmp_path / "y.npy", y)
    files = [str(tmp_path / "X.npy"), str(tmp_path / "y.npy")]
    to = ["--to", str(tmp_path / "by command" / "churn")]
    assert cli.main(["promote", run.url, "--holdout", *files, *to]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(
        "promoted: there was no champion\nf1 of the challenger: 1"
    )
    assert cli.main(["promote", run.url, "--holdout", *files, *to]) == 0
    assert capsys.readouterr().out.startswith("not promoted: the gain of 0 has a 95%")
    holdout = champion_card(to[1]).holdout
    assert holdout["data"]["X"]["source"]["objects"][0]["url"].endswith("X.npy")
    wrong = ["--min-gain", "nan"]
    assert cli.main(["promote", run.url, "--holdout", *files, *to, *wrong]) == 1
    assert "min_gain must be" in capsys.readouterr().err


def test_a_card_is_readable_by_itself(tmp_path: Path) -> None:
    """As JSON, and as Markdown beside it."""
    promote(guess(0.6), X, y, to=tmp_path / "churn")
    promote(guess(0.8), X, y, to=tmp_path / "churn", **FEW)
    (folder,) = (tmp_path / "churn" / "versions").glob("00000002-*")

    card = json.loads((folder / "card.json").read_text())
    text = (folder / "card.md").read_text()

    assert (card["version"], card["replaced"], card["holdout"]["n_rows"]) == (2, 1, 400)
    assert card["environment"]["scikit-learn"]
    assert "| gain | +0.2 (95% interval +0.1" in text
    assert champion_card(tmp_path / "churn").to_markdown() == text
