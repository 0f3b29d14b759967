"""Champions and their challengers."""
