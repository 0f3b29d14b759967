"""Slots: processes on the Dask workers that run one fit at a time."""
