"""Exports: the candidates of a search as tables, as an Optuna study and as runs of MLflow."""

from __future__ import annotations

__all__ = [
    "candidate_result",
    "mlflow_model",
    "mlflow_process",
    "mlflow_runs",
    "mlflow_settings",
    "optuna_study",
    "tables",
]
