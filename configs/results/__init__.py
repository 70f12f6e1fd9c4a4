"""Results on real models: one file for each table of docs/experiments.md.

Each is an experiment as in `configs/ablations`, with all that its command does
not say. Its docstring has the command, the hardware, the minutes and what came
out.
"""
