"""Dask clusters that suit searches: each is one of Dask's own cluster objects."""
