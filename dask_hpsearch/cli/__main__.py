"""Runs the command, as ``python -m dask_hpsearch.cli``."""

from __future__ import annotations

from dask_hpsearch.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
