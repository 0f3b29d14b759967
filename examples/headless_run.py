"""Submit a search that runs unattended, and fetch its result later."""

from __future__ import annotations

import argparse
import pickle
from pathlib import Path

from scipy.stats import randint
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import RandomizedSearchCV

from dask_hpsearch import DaskSearchCV, SearchRun

SPACE = {"n_estimators": randint(20, 100), "max_features": randint(1, 33)}


def main(argv: list[str] | None = None) -> None:
    """Submit, or fetch."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    submit = commands.add_parser("submit", help="start a run; print its URL")
    submit.add_argument("--store", help="folder or gs:// URL that holds runs")
    submit.add_argument("--n-iter", type=int, default=10, help="candidates to try")
    fetch = commands.add_parser("fetch", help="wait for a run's end; write its result")
    fetch.add_argument("url")
    fetch.add_argument("--output", type=Path, default=Path("found.pkl"))
    arguments = parser.parse_args(argv)
    if arguments.command == "submit":
        print(_submit(arguments.store, arguments.n_iter).url)
    else:
        _fetch(arguments.url, arguments.output)


def _submit(store: str | None, n_iter: int) -> SearchRun:
    """Start a run; without a client it starts a cluster on this machine."""
    X, y = load_digits(return_X_y=True)
    search = RandomizedSearchCV(
        RandomForestClassifier(random_state=0),
        SPACE,
        n_iter=n_iter,
        cv=3,
        random_state=0,
    )
    return DaskSearchCV(search, store=store, task_name="headless").submit(X, y)


def _fetch(url: str, output: Path) -> None:
    """Write scikit-learn's own object, which loads without this package."""
    run = SearchRun.attach(url)
    fitted = run.result()
    with output.open("wb") as file:
        pickle.dump(fitted, file)
    print(f"{run.state}: {fitted.best_score_:.4f} with {fitted.best_params_}")


if __name__ == "__main__":
    main()
