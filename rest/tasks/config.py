"""What a run says about its problem set, and the draws that it implies."""

import hashlib
from dataclasses import dataclass

from rest.types import Problem

SPLITS = ('train', 'validation', 'test')


@dataclass(frozen=True, slots=True)
class TaskConfig:
  """Which problems, and how they are asked.

  Attributes:
    name: Key of `rest.tasks.TASKS`.
    path: Folder of the original files, or a copy made by `python -m rest.tasks
      prepare`; '' for embedded sets.
    prompt: 'few_shot' or 'zero_shot', where the task has both; bbh has 'cot'
      and 'direct'. '' is the task's usual one.
    split: Variant of the problems, as the task's module lists them; '' is the
      first. For math: 'original', 'prm800k', 'math500'.
    solved_by: Folder of a run's iteration: only those training problems are
      left that its dataset solves; '' leaves all.
    num_train: Problems to train on, a nested random subset; 0 for all.
    num_validation: Problems held out of train, chosen by a hash; of the
      validation split where a set has its own (arithmetic 300, mbpp 90).
    num_test: Problems to test on, a nested random subset; 0 for all.
    seed: Of the validation split and the subsets.
  """

  name: str
  path: str = ''
  prompt: str = ''
  split: str = ''
  solved_by: str = ''
  num_train: int = 0
  num_validation: int = 300
  num_test: int = 0
  seed: int = 0


def choose(
  problems: list[Problem], size: int, field: str, seed: int
) -> list[Problem]:
  """Returns so many random problems in the order of the set.

  A larger choice contains every smaller one of the same seed.

  Args:
    problems: What to choose from.
    size: How many.
    field: Config field to name where there are too few.
    seed: Of the choice.
  """
  if not 0 <= size <= len(problems):
    raise ValueError(
      f'{field} must be between 0 and {len(problems)}, the number of problems'
      f' there are, got {size}.'
    )
  ranked = sorted(problems, key=lambda p: _order(p, seed))
  chosen = {p.id for p in ranked[:size]}
  return [p for p in problems if p.id in chosen]


def _order(problem: Problem, seed: int) -> str:
  return hashlib.sha256(f'{seed}/{problem.id}'.encode()).hexdigest()
