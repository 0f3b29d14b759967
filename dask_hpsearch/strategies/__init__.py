"""Strategies of our own, which ask what to evaluate while evaluations run."""

from __future__ import annotations

__all__ = ["bayes", "halving", "incremental", "model_states", "optuna"]
