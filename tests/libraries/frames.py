"""Cases of polars, pyarrow and category_encoders: frames that are not plain numpy."""

from __future__ import annotations

from typing import Any

import category_encoders
import polars as pl
import pyarrow as pa
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from tests.libraries.case import EVERY_KIND, Case, shop, weights

STRENGTHS = {"model__C": [0.01, 1.0, 100.0]}
NUMBERS, STRINGS = ["age", "income"], ["city", "plan"]


def steps(encoder: Any = None, *, output: str = "default") -> Pipeline:
    """Make a pipeline that takes a frame apart by its columns' names."""
    columns = make_column_transformer(
        (make_pipeline(SimpleImputer(), StandardScaler()), NUMBERS),
        (
            encoder or OneHotEncoder(handle_unknown="ignore", sparse_output=False),
            STRINGS,
        ),
    )
    model = LogisticRegression(max_iter=300)
    pipeline = Pipeline([("columns", columns), ("model", model)])
    return pipeline.set_output(transform=output)


def _polars() -> tuple[pl.DataFrame, Any]:
    X, y = shop()
    frame = pl.from_pandas(X.astype(dict.fromkeys(STRINGS, str)))
    return frame.with_columns(pl.col("income").fill_nan(None)), y


def _polars_twice() -> tuple[pl.DataFrame, pl.Series]:
    X, y = _polars()
    return X, pl.Series("bought", y)


def _arrow_backed() -> tuple[Any, Any]:
    X, y = shop()
    X = X.astype(dict.fromkeys(STRINGS, str))
    return X.convert_dtypes(dtype_backend="pyarrow"), y


def _table() -> tuple[Any, Any]:
    X, y = shop()
    return pa.Table.from_pandas(X.astype(dict.fromkeys(STRINGS, str))), y


def _strings() -> tuple[Any, Any]:
    X, y = shop()
    return X.astype(dict.fromkeys(STRINGS, object)), y


POLARS = (
    Case(
        name="polars", estimator=steps, space=STRENGTHS, data=_polars, kinds=EVERY_KIND
    ),
    Case(
        name="polars-output",
        estimator=lambda: steps(output="polars"),
        space=STRENGTHS,
        data=_polars_twice,
        kinds=("grid", "random"),
    ),
)
PYARROW = (
    Case(
        name="pyarrow",
        estimator=steps,
        space=STRENGTHS,
        data=_arrow_backed,
        kinds=EVERY_KIND,
    ),
    Case(
        name="pyarrow-sample-weight",
        estimator=steps,
        space=STRENGTHS,
        data=_arrow_backed,
        fit_params=lambda: {"model__sample_weight": weights(160)},
    ),
    Case(name="pyarrow-table", estimator=steps, space=STRENGTHS, data=_table),
    Case(
        name="pandas-categories",
        estimator=lambda: HistGradientBoostingClassifier(
            max_iter=8, categorical_features="from_dtype", random_state=0
        ),
        space={"max_depth": [1, 2, 3]},
        data=shop,
        kinds=("grid", "halving-random"),
    ),
)
ENCODERS = (
    Case(
        name="category_encoders",
        estimator=lambda: steps(category_encoders.TargetEncoder()),
        space={"columns__targetencoder__smoothing": [1.0, 10.0, 50.0]},
        data=_strings,
        kinds=EVERY_KIND,
    ),
    Case(
        name="category_encoders-replaced",
        estimator=lambda: steps(category_encoders.TargetEncoder()),
        space={
            "columns__targetencoder": [
                category_encoders.CatBoostEncoder(random_state=0, sigma=0.1),
                category_encoders.HashingEncoder(max_process=1),
                category_encoders.LeaveOneOutEncoder(random_state=0, sigma=0.1),
                category_encoders.WOEEncoder(),
            ]
        },
        data=_strings,
    ),
    Case(
        name="category_encoders-frames",
        estimator=lambda: steps(category_encoders.OrdinalEncoder(), output="pandas"),
        space=STRENGTHS,
        data=_strings,
    ),
)
CASES = POLARS + PYARROW + ENCODERS
