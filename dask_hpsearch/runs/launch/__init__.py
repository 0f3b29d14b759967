"""Starts drivers: as a process of this machine, or as a Kubernetes Job."""
