"""Signatures of pickles, and secrets that may not leave this machine."""
