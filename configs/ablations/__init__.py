"""Experiments: arms that change a few fields of one run, to be compared.

  python -m rest.experiment --config=configs/ablations/reset_vs_continue.py
  python -m rest.experiment \
      --config=configs/ablations/reset_vs_continue.py:math \
      --config.run.model.path=/models/Qwen2.5-1.5B \
      --config.run.task.path=/data/math --config.run.eval.suite_folder=/data

After the colon stands a config of `configs/`; without it, the embedded set at a
size for a CPU. Any field of the run is set by --config.run.SECTION.FIELD, and
the seeds by --config.seeds="(0,)". docs/experiments.md lists all of them.
"""

import importlib
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

EMBEDDED = 'arithmetic'

# What each set's transfer is tested on.
_TRANSFER = {
  'arithmetic': 'arithmetic/longer',
  'gsm8k': 'math/math500',
  'math': 'gsm8k',
  'apps': 'humaneval',
  'mbpp': 'humaneval',
}


def start(base: str) -> Any:
  """Returns the run that arms start from: a config of `configs/`."""
  run = importlib.import_module(f'configs.{base}').get_config()
  if base == EMBEDDED:  # Small enough to be run a few dozen times.
    run.task.num_train = 100
    run.task.num_validation = 50
    run.task.num_test = 200
    run.em.iterations = 2
    run.estep.num_samples = 8
    run.mstep.learning_rate = 1e-4  # At 5e-4, further steps cost accuracy.
    run.eval.num_samples = 0
    run.eval.pass_k = ()
    run.eval.suite_problems = 100
  return run


def compare(
  name: str,
  title: str,
  run: Any,
  arms: Mapping[str, Mapping[str, Mapping[str, Any]]],
  *,
  axis: str = 'iteration',
  scores: tuple[str, ...] = ('test',),
  transfers: bool = False,
) -> ConfigDict:
  """Returns an experiment.

  Args:
    name: Names the default working directory.
    title: Of the figure.
    run: What all arms start from.
    arms: By name, sections with the fields that an arm changes. '{NAME}' in a
      text stands for the working directory of another arm, of the same seed,
      which must come before. What arms have in common is drawn by the first of
      them, so the one that draws most comes first.
    axis: Of the figure: 'iteration', 'arm', 'k' or 'difficulty'. But for the
      first, an arm is judged by the iteration that is best on validation.
    scores: What is compared: 'test', 'validation', 'train', 'pass@4', 'maj',
      'suites/...'.
    transfers: Whether arms are compared on another set as well; for a real one,
      set run.eval.suite_folder.
  """
  c = ConfigDict()
  c.name = name
  c.title = title
  c.run = run
  c.arms = tuple(arms)  # In order; a ConfigDict has none.
  c.changes = ConfigDict({arm: dict(changes) for arm, changes in arms.items()})
  c.seeds = (0, 1, 2)
  c.axis = axis
  c.scores = scores
  if transfers:
    suite = _TRANSFER[run.name]
    run.eval.suites = (suite,)
    c.scores = (*scores, 'suites/' + suite.replace('/', '-'))
  return c
