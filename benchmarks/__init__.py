"""Side-by-side benchmarks against scikit-learn's loky, joblib's Dask backend, dask-ml."""

from __future__ import annotations
