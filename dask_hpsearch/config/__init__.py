"""Specs of clusters: YAML files as values that have been checked."""
