"""What one does with a model that came out of a run."""
