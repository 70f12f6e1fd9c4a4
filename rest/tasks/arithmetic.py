"""`arithmetic`: the embedded set of multi-step word problems, made on the fly.

GSM8K's form: an English question, a solution of one equation a line, and
`#### answer`. 4,000 problems to train, 300 to validate, 1,000 to test.
"""

import functools

from rest.tasks import situations
from rest.tasks.config import SPLITS, TaskConfig, choose
from rest.types import Problem

_SIZES = {'train': 4000, 'validation': 300, 'test': 1000}


class Arithmetic:
  """The embedded problem set; zero-shot."""

  name = 'arithmetic'
  version = '1'
  verifier = 'math'
  prefix = ''
  stop = ()

  def __init__(self, config: TaskConfig):
    self._config = config

  def problems(self, split: str) -> list[Problem]:
    if split not in SPLITS:
      raise ValueError(f'split must be one of {SPLITS}, got {split!r}.')
    sizes = {
      'train': self._config.num_train,
      'validation': self._config.num_validation,
      'test': self._config.num_test,
    }
    every = list(problems(split))
    # 0 means all, except that a run may want no validation.
    if not sizes[split] and split != 'validation':
      return every
    field = f'task.num_{split}'
    return choose(every, sizes[split], field, self._config.seed)

  def question(self, problem: Problem) -> str:
    return ask(problem.question)

  def target(self, problem: Problem) -> str:
    assert problem.solution is not None  # Every problem is made with one.
    return problem.solution

  def program(self, problem: Problem, completion: str) -> str:
    raise ValueError('arithmetic is not judged by running programs.')


def ask(question: str) -> str:
  """Returns the prompt for a question; its solution follows."""
  return question + '\n'


def write_up(steps: list[situations.Step], answer: int) -> str:
  """Returns the text of a solution."""
  return '\n'.join([*map(str, steps), f'#### {answer}'])


@functools.cache
def problems(split: str) -> tuple[Problem, ...]:
  """Returns all problems of a split, levels in turn, the same every time."""
  dice = situations.Dice('arithmetic', split)
  levels = tuple(situations.LEVELS)
  made: dict[str, Problem] = {}
  while len(made) < _SIZES[split]:
    level = levels[len(made) % len(levels)]
    story = situations.tell(dice, level, split)
    if story.question in made:
      continue
    steps = situations.solve(story, situations.Author(), dice)
    answer = steps[-1].result
    made[story.question] = Problem(
      id=f'arithmetic/{split}/{len(made)}',
      question=story.question,
      answer=str(answer),
      solution=write_up(steps, answer),
      level=level,
      subject=story.subject,
    )
  return tuple(made.values())
