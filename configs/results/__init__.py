"""Results on real models: one file for each table of docs/experiments.md.

Each is an experiment as in `configs/ablations`, with all that its command does
not say. Its docstring has the command, the hardware, the minutes and what came
out.
"""

from typing import Any

from configs import ablations


def start() -> Any:
  """Returns what all recipes on GSM8K start from: minutes on one GPU."""
  run = ablations.start('gsm8k')
  run.task.num_validation = 300
  run.estep.num_samples = 16
  run.estep.cap = 4
  run.mstep.epochs = 1
  return run
