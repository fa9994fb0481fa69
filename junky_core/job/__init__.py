"""What one running job has: its context, loaders, best model, failures, streams."""
