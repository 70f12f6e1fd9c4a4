"""A run on paper: what it takes of each device, and how long."""
