"""GKE clusters: found, created, changed, deleted, and deleted in time."""
