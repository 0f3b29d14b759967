"""Google Cloud Storage for tests: an emulator, and a proxy before it."""
