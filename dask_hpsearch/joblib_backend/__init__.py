"""A joblib backend that hands scikit-learn's tasks to the engine."""
