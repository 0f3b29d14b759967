"""Images for scheduler, workers and operator: what goes in, and building them."""
