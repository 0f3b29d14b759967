"""The refitted model of a search as a logged model of MLflow."""

from __future__ import annotations

import tempfile
import warnings
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dask_hpsearch.exports.mlflow_runs import MlflowRuns

_NAME = "best_estimator"
_TAG = "dask-hpsearch.generation"
_PACKAGES = ("scikit-learn", "numpy", "scipy", "cloudpickle", "pandas")


def log_model(runs: MlflowRuns, model: Any, example: Any, *, generation: int) -> str:
    """Log a model to a search's run, with its signature and an input example.

    It is logged once for each generation of the run: what a killed process has begun is
    taken up.

    Parameters
    ----------
    runs : MlflowRuns
    model : estimator
    example : array-like or None
        Some rows of X; None: the model has no signature.
    generation : int
        How often the run had been extended.

    Returns
    -------
    str
        Its id.
    """
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    client = runs.client
    filter_string = f"source_run_id = '{runs.parent}'"
    found = [
        one
        for one in client.search_logged_models(
            [runs.experiment_id], filter_string=filter_string
        )
        if one.tags.get(_TAG) == str(generation)
    ]
    if found and found[0].status == LoggedModelStatus.READY:
        return str(found[0].model_id)
    logged = (
        found[0]
        if found
        else client.create_logged_model(
            runs.experiment_id,
            name=_NAME,
            source_run_id=runs.parent,
            tags={_TAG: str(generation)},
        )
    )
    with tempfile.TemporaryDirectory(prefix="dask-hpsearch-") as folder:
        path = str(Path(folder) / "model")
        _save(model, example, path, run_id=runs.parent, model_id=logged.model_id)
        client.log_model_artifacts(logged.model_id, path)
    client.log_outputs(runs.parent, [LoggedModelOutput(logged.model_id, step=0)])
    client.finalize_logged_model(logged.model_id, "READY")
    return str(logged.model_id)


def _save(model: Any, example: Any, path: str, *, run_id: str, model_id: str) -> None:
    """Save a model as a folder of MLflow's."""
    import mlflow.sklearn
    from mlflow.models import Model

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # hints on types, which the example has
        mlflow.sklearn.save_model(
            model,
            path,
            mlflow_model=Model(run_id=run_id, artifact_path=_NAME, model_id=model_id),
            input_example=example,
            # MLflow would load the model in another process to find them.
            pip_requirements=_requirements(model),
            # Of this user's own estimators too, which "skops" refuses.
            serialization_format="cloudpickle",
        )


def _requirements(model: Any) -> list[str]:
    """Return the packages that a model needs, with their versions here."""
    parts = [model, *model.get_params(deep=True).values()]
    modules = {type(one).__module__.split(".")[0] for one in parts}
    distributions = metadata.packages_distributions()
    names = {name for module in modules for name in distributions.get(module, ())}
    found = []
    for name in sorted(names.union(_PACKAGES)):
        try:
            found.append(f"{name}=={metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return found


def example_of(X: Any, n_rows: int = 5) -> Any:
    """Return some rows of X as MLflow takes an input example; None if it cannot."""
    from sklearn.utils import _safe_indexing

    try:
        rows = _safe_indexing(X, list(range(min(n_rows, len_of(X)))))
    except Exception:  # noqa: BLE001 (X may be anything that the estimator takes)
        return None
    known = hasattr(rows, "dtype") or hasattr(rows, "dtypes")
    return rows if known and hasattr(rows, "shape") else None


def len_of(X: Any) -> int:
    """Return the number of rows of X, which may be sparse."""
    shape = getattr(X, "shape", None)
    return int(shape[0]) if shape else len(X)
