"""`arithmetic`: the embedded set of multi-step word problems, made on the fly.

GSM8K's form: an English question, a solution of one equation a line, and
`#### answer`. 4,000 problems to train, 300 to validate, 1,000 to test; and 300
of nine or ten steps, more than a base model has seen, to test transfer.
"""

import functools
import itertools

from rest.config import TaskConfig
from rest.tasks.arithmetic import situations
from rest.tasks.problem_set import SPLITS, ProblemSet
from rest.types import Problem

_SIZES = {'train': 4000, 'validation': 300, 'test': 1000, 'longer': 300}


class Arithmetic(ProblemSet):
  """The embedded problem set; zero-shot. 'longer' only tests."""

  name = 'arithmetic'
  version = '1'
  verifier = 'math'
  splits = SPLITS
  prompts = ('zero_shot',)
  variants = ('standard', 'longer')

  def __init__(self, config: TaskConfig):
    super().__init__(config)
    if self.variant == 'longer':
      self.splits = ('test',)

  def read(self, split: str) -> list[Problem]:
    return list(problems('longer' if self.variant == 'longer' else split))

  def question(self, problem: Problem) -> str:
    return ask(problem.question)


def ask(question: str) -> str:
  """Returns the prompt for a question; its solution follows."""
  return question + '\n'


def write_up(steps: list[situations.Step], answer: int) -> str:
  """Returns the text of a solution."""
  return '\n'.join([*map(str, steps), f'#### {answer}'])


def problems(split: str) -> tuple[Problem, ...]:
  """Returns all problems of a split, levels in turn, the same every time.

  'longer' is a split here, too.
  """
  return _all_problems()[split]


@functools.cache
def _all_problems() -> dict[str, tuple[Problem, ...]]:
  """Makes test first, since what it asks no other split may ask.

  Splits share no two sentences in a row with the same numbers, so that a leak
  check finds nothing to drop.
  """
  taken: set[tuple[situations.Event, situations.Event]] = set()
  made = {}
  for split in (*reversed(SPLITS), 'longer'):
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
  longer = split == 'longer'
  levels = ('6',) if longer else tuple(situations.LEVELS)
  stories: dict[str, situations.Story] = {}
  while len(stories) < _SIZES[split]:
    level = levels[len(stories) % len(levels)]
    story = situations.tell(dice, level, 'test' if longer else split)
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
