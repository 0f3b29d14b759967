"""What a Google Cloud project lacks before clusters can be made in it."""
