"""The embedded problem set, and the corpus of the embedded base model."""
