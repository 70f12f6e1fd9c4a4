"""Finds problems that a model could have seen: overlap between splits.

A problem is dropped from the split that matters less: from train where it
overlaps with validation, test or the few-shot prompt, from validation where
with test or the prompt, from test where with the prompt. Two problems overlap
if they read the same without case, spaces and punctuation, or if half of the
13-grams (Brown et al., 2020) of one stand in the other. One shared 13-gram
alone says little: MATH is full of 'What is the sum of all positive integers'.
And one of many problems says nothing: it is how a set puts its questions.
"""

import functools
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from rest.tasks.problem_set import SPLITS
from rest.types import Problem, Task

_WORDS = 13
_SHARE = 0.5  # Of a problem's 13-grams.
_MANY = 50  # Problems; a 13-gram of more is left out.

_IGNORED = re.compile(r'[\s$.,;:?!\'"`]|\\[ ,;!]')
_FIGURE = re.compile(r'\[asy\].*?(?:\[/asy\]|\Z)', re.DOTALL)
_SHOWN_TESTS = re.compile(r'\n\n(?=assert\b)')


@dataclass(frozen=True, slots=True)
class Leak:
  """One problem to drop.

  Attributes:
    split: Where it stands, and is to be dropped from.
    problem_id: Which one.
    source: What it overlaps with: 'prompt', or a split and a problem id.
    reason: 'same id', 'same text', or the share of 13-grams, such as '0.62'.
  """

  split: str
  problem_id: str
  source: str
  reason: str


def find(task: Task) -> list[Leak]:
  """Returns what to drop from a task's splits, in their order."""
  found: list[Leak] = []
  kept = _Index(p for split in SPLITS for p in task.problems(split))
  kept.add_prompt(task.prefix)
  for split in reversed(SPLITS):  # Test first: it loses nothing to the others.
    problems = task.problems(split)
    leaks = kept.overlaps(problems, split)
    found = leaks + found
    for problem in drop(problems, leaks, split):
      kept.add(problem, split)
  return found


class Clean:
  """A task without its leaks."""

  def __init__(self, task: Task, leaks: list[Leak]):
    self.name = task.name
    self.version = task.version
    self.verifier = task.verifier
    self.prefix = task.prefix
    self.stop = task.stop
    self.turn_end = task.turn_end
    self.question = task.question
    self.target = task.target
    self.program = task.program
    self._task = task
    self._leaks = leaks

  def problems(self, split: str) -> list[Problem]:
    return drop(self._task.problems(split), self._leaks, split)


def find_in_suite(task: Task, suite: Task) -> list[Leak]:
  """Returns what to drop from a transfer set's test, after training on task."""
  trained = [*task.problems('train'), *task.problems('validation')]
  seen = _Index([*trained, *suite.problems('test')])
  seen.add_prompt(task.prefix)
  for split in ('train', 'validation'):
    for problem in task.problems(split):
      seen.add(problem, split)
  return seen.overlaps(suite.problems('test'), 'test')


def drop(
  problems: Iterable[Problem], leaks: Iterable[Leak], split: str
) -> list[Problem]:
  """Returns the problems of a split that do not leak."""
  dropped = {leak.problem_id for leak in leaks if leak.split == split}
  return [problem for problem in problems if problem.id not in dropped]


class _Index:
  """What has been seen, by id, by text and by 13-grams."""

  def __init__(self, problems: Iterable[Problem]):
    """Takes all problems that will be compared, for what many share."""
    counts = Counter(g for p in problems for g in _grams(_statement(p)))
    self._common = {gram for gram, n in counts.items() if n > _MANY}
    self._prompt = ''
    self._ids: dict[str, str] = {}
    self._texts: dict[str, str] = {}
    self._grams: dict[int, list[str]] = {}
    self._sizes: dict[str, int] = {}

  def add_prompt(self, prompt: str) -> None:
    self._prompt = _normalise(prompt)
    self._add_grams(self._telling(prompt), 'prompt')

  def add(self, problem: Problem, split: str) -> None:
    source = f'{split} {problem.id}'
    self._ids[problem.id] = source
    text = _statement(problem)
    self._texts.setdefault(_normalise(text), source)
    self._add_grams(self._telling(text), source)

  def overlaps(self, problems: list[Problem], split: str) -> list[Leak]:
    leaks = []
    for problem in problems:
      overlap = self._overlap(problem)
      if overlap is not None:
        leaks.append(Leak(split, problem.id, *overlap))
    return leaks

  def _telling(self, text: str) -> list[int]:
    return [gram for gram in _grams(text) if gram not in self._common]

  def _add_grams(self, grams: list[int], source: str) -> None:
    self._sizes[source] = len(grams)
    for gram in grams:
      self._grams.setdefault(gram, []).append(source)

  def _overlap(self, problem: Problem) -> tuple[str, str] | None:
    """Returns the source of an overlap and the reason, or None."""
    if problem.id in self._ids:
      return self._ids[problem.id], 'same id'
    text = _statement(problem)
    normal = _normalise(text)
    if normal in self._texts:
      return self._texts[normal], 'same text'
    if normal in self._prompt:
      return 'prompt', 'same text'
    grams = self._telling(text)
    shared = Counter(
      source for gram in grams for source in self._grams.get(gram, ())
    )
    for source, count in shared.most_common(1):
      # Of the shorter one: a part of a longer text is an overlap as well.
      share = count / min(len(grams), self._sizes[source])
      if share >= _SHARE:
        return source, f'{share:.2f}'
    return None


def _statement(problem: Problem) -> str:
  """Returns what sets the problem, without the tests that MBPP shows."""
  return _SHOWN_TESTS.split(problem.question)[0]


def _normalise(text: str) -> str:
  return _IGNORED.sub('', text.lower())


@functools.lru_cache(maxsize=2**14)  # A text is looked at three times.
def _grams(text: str) -> list[int]:
  """Returns the distinct 13-grams of the words, figures left out."""
  words = re.findall(r'\w+', _FIGURE.sub('', text.lower()))
  starts = range(len(words) - _WORDS + 1)
  # In order, so that ties between sources fall the same way in every run.
  return list(dict.fromkeys(hash(tuple(words[i : i + _WORDS])) for i in starts))
