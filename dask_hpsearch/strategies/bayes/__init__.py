"""BayesSearchCV without a barrier between its batches."""
