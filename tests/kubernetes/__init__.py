"""Tests on a real Kubernetes cluster."""

from __future__ import annotations
