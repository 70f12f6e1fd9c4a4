"""Experiments: arms and seeds, what they share, and how they compare."""
