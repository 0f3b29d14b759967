"""Checks that a Google Cloud project has what a spec needs."""
