"""Configurations: data; `rest/config.py` has every field."""
