"""The public search estimator, and which way a search is run."""
