"""Pipelines whose first steps are what takes long, and most candidates share."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import KernelPCA
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.pipeline import Pipeline

from benchmarks.case import Case, Entry

_N_TEXTS = 1600
_N_WORDS = 20_000


def digits(quick: bool) -> tuple[Any, Any]:  # noqa: FBT001 (all cases have this form)
    """Return scikit-learn's digits; a third of them for a quick look."""
    X, y = load_digits(return_X_y=True)
    return (X[:600], y[:600]) if quick else (X, y)


def kernels(module: Any, quick: bool, inner_n_jobs: int) -> Any:  # noqa: FBT001
    """Return a grid of 3 unseeded KernelPCA and 20 classifiers on 3 splits."""
    del inner_n_jobs
    grid = {
        "kernels__gamma": [5e-4, 1e-3, 2e-3],
        "classifier__C": np.logspace(-2, 1, 5 if quick else 20),
    }
    pipeline = Pipeline(
        [
            ("kernels", KernelPCA(n_components=20, kernel="rbf")),
            ("classifier", LogisticRegression(max_iter=100)),
        ]
    )
    return module.GridSearchCV(pipeline, grid, cv=3, refit=False)


def texts(quick: bool) -> tuple[Any, Any]:  # noqa: FBT001
    """Return texts of 100 words, drawn as in natural language, of two topics."""
    rng = np.random.default_rng(0)
    n_texts = _N_TEXTS // 4 if quick else _N_TEXTS
    y = np.arange(n_texts) % 2
    words = (rng.zipf(1.3, size=(n_texts, 100)) + 3 * y[:, None]) % _N_WORDS
    X = np.array([" ".join(f"word{one}" for one in text) for text in words], object)
    return X[:, None], y


def vectorizers(module: Any, quick: bool, inner_n_jobs: int) -> Any:  # noqa: FBT001
    """Return a grid of 2 vectorizers and 10 classifiers on 5 splits."""
    del inner_n_jobs
    grid = {
        "words__ngram_range": [(1, 1), (1, 2)],
        "classifier__alpha": np.logspace(-6, -2, 5 if quick else 10),
    }
    pipeline = Pipeline(
        [
            ("words", TfidfVectorizer(preprocessor=_of_row)),
            ("classifier", SGDClassifier(random_state=0)),
        ]
    )
    return module.GridSearchCV(pipeline, grid, cv=5, refit=False)


def _of_row(row: Any) -> str:
    """Return the text of a row."""
    return str(row[0])


CASES = (
    Case(
        name="steps",
        title="3 KernelPCA without a seed, 20 LogisticRegression each, 3 splits",
        data=digits,
        search=kernels,
        entries=(
            Entry("dask_hpsearch"),
            Entry("dask_hpsearch, all steps", rare=True),
            Entry("loky, memory="),
            Entry("loky", rare=True),
            Entry("dask-ml"),
        ),
    ),
    Case(
        name="steps-text",
        title="2 TfidfVectorizer, 10 SGDClassifier each, 5 splits",
        data=texts,
        search=vectorizers,
        entries=(
            Entry("dask_hpsearch"),
            Entry("loky, memory="),
            Entry("loky", rare=True),
            Entry("dask-ml"),
        ),
    ),
)
