"""Draws the picture of README and of the manual's first page: ``python docs/images/draw.py``."""

from __future__ import annotations

from pathlib import Path

from scipy.stats import randint
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import RandomizedSearchCV

from dask_hpsearch import DaskSearchCV
from dask_hpsearch.plots import SearchHistoryDisplay

FOLDER = Path(__file__).parent


def main() -> None:
    """Search, and draw the scores over time."""
    X, y = load_digits(return_X_y=True)
    space = {
        "n_estimators": randint(2, 60),
        "max_features": randint(1, 33),
        "max_depth": randint(2, 20),
    }
    forest = RandomForestClassifier(random_state=0)
    search = RandomizedSearchCV(forest, space, n_iter=50, cv=3, random_state=1)
    found = DaskSearchCV(search).fit(X, y)
    history = SearchHistoryDisplay.from_search(found).plot()
    history.figure_.set_size_inches(9, 3.6)
    history.figure_.savefig(FOLDER / "search-history.png", dpi=110, bbox_inches="tight")


if __name__ == "__main__":
    main()
