"""Notes what a search evaluates, and replays what its run has."""
