"""Container images: built by Cloud Build, kept in Artifact Registry."""
