"""Strategies of our own, which ask what to evaluate while evaluations run."""
