"""Tests with the lowest versions that are declared."""
