"""Container images of scheduler, workers and operator: content and build."""
