"""`arithmetic`: the embedded set of multi-step word problems, made on the fly.

GSM8K's form: an English question, a solution of one equation a line, and
`#### answer`. 4,000 problems to train, 300 to validate, 1,000 to test.
"""

import functools
import itertools

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


def problems(split: str) -> tuple[Problem, ...]:
  """Returns all problems of a split, levels in turn, the same every time."""
  return _all_problems()[split]


@functools.cache
def _all_problems() -> dict[str, tuple[Problem, ...]]:
  """Makes test first, since what it asks no other split may ask.

  Splits share no two sentences in a row with the same numbers, so that a leak
  check finds nothing to drop.
  """
  taken: set[tuple[situations.Event, situations.Event]] = set()
  made = {}
  for split in reversed(SPLITS):
    stories = _stories(split, taken)
    taken.update(pair for story in stories for pair in _pairs(story))
    made[split] = tuple(
      _problem(f'arithmetic/{split}/{index}', story)
      for index, story in enumerate(stories)
    )
  return made


def _stories(
  split: str, taken: set[tuple[situations.Event, situations.Event]]
) -> list[situations.Story]:
  dice = situations.Dice('arithmetic', split)
  levels = tuple(situations.LEVELS)
  stories: dict[str, situations.Story] = {}
  while len(stories) < _SIZES[split]:
    level = levels[len(stories) % len(levels)]
    story = situations.tell(dice, level, split)
    if story.question not in stories and taken.isdisjoint(_pairs(story)):
      stories[story.question] = story
  return list(stories.values())


def _pairs(
  story: situations.Story,
) -> list[tuple[situations.Event, situations.Event]]:
  return list(itertools.pairwise(story.events))


def _problem(name: str, story: situations.Story) -> Problem:
  dice = situations.Dice(name)
  steps = situations.solve(story, situations.Author(), dice)
  answer = steps[-1].result
  return Problem(
    id=name,
    question=story.question,
    answer=str(answer),
    solution=write_up(steps, answer),
    level=story.level,
    subject=story.subject,
  )
