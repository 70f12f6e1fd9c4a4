"""Configurations: data, with every field in `base.py`."""
