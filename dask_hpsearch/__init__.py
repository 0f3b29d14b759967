"""Fit any scikit-learn hyperparameter search on Dask workers."""

from __future__ import annotations
