"""Tests of exports: shared helpers are in its modules."""
