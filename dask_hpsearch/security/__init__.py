"""Signatures of pickles, and detection of secrets."""
