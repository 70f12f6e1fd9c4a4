"""Runs one experiment: python -m rest.experiment --config=FILE; see `sweep`."""

from absl import app, flags

from rest import main
from rest.experiment.sweep import sweep

flags.mark_flag_as_required('config')
app.run(sweep, flags_parser=main.parse)
