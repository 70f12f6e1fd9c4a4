"""A run on disk: its files, its log, and what one sees while it goes on."""
