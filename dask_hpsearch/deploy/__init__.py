"""From a spec to a Dask cluster on GKE, and back to nothing."""
