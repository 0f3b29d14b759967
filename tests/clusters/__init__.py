"""Tests of clusters."""

from __future__ import annotations
