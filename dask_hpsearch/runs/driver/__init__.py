"""The process that drives a submitted search."""
