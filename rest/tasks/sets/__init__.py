"""The problem sets that others published: their files, their prompts."""
