"""Google Cloud: GKE clusters, the images that run there, and what they cost."""
