"""Tests of specs."""

from __future__ import annotations
