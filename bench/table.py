"""A load for the host: many problems, and a sampler that draws from a table."""

import itertools
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rest import tasks
from rest.config import TaskConfig
from rest.sampler import Ask, Stats
from rest.sampler.order import Sampled
from rest.types import Problem, Tokenizer

_TOKENS = 200  # Of a sample, about.
_ROWS = 4096  # Of the table.
_NONE = np.zeros(0, np.float32)  # Log-probabilities.
_AT_ONCE = 8  # Problems whose samples come in turns: they end together.


class Repeated:
  """The embedded problems, again and again, under new names."""

  name = 'arithmetic'
  version = 'repeated'
  verifier = 'math'
  prefix = turn_end = ''
  stop: tuple[str, ...] = ()

  def __init__(self, count: int):
    self._source = tasks.make(TaskConfig(name='arithmetic', prompt='zero_shot'))
    self._count = count

  def problems(self, split: str) -> list[Problem]:
    asked = itertools.cycle(self._source.problems(split))
    return [
      replace(problem, id=f'{split}/{index}')
      for index, problem in zip(range(self._count), asked, strict=False)
    ]

  def question(self, problem: Problem) -> str:
    return self._source.question(problem)

  def target(self, problem: Problem) -> str:
    return self._source.target(problem)

  def program(self, problem: Problem, completion: str) -> str:
    return self._source.program(problem, completion)


class Table:
  """Stands in for the sampler: solutions to other problems, and an answer.

  Attributes:
    stats: Counts tokens, as a sampler does.
    seconds: Processor time that went into drawing.
  """

  def __init__(self, task: Repeated, codec: Tokenizer):
    self.stats, self.seconds = Stats(), 0.0
    random = np.random.default_rng(0)
    texts = [task.target(p) for p in Repeated(4000).problems('train')]
    steps = [text.rpartition('\n')[0] + '\n' for text in texts]
    ids = [codec.encode(text, follows=True) for text in steps]
    rows: list[list[int]] = []
    for _ in range(_ROWS):
      row: list[int] = []
      while len(row) < _TOKENS:
        row += ids[random.integers(len(ids))]
      rows.append(row)
    answers = [p.answer or '' for p in task.problems('train')]
    known = {a: codec.encode(f'#### {a}', follows=True) for a in {*answers, ''}}
    self._ends = [_numbers([*known[a], codec.eos[0]]) for a in answers]
    self._wrong = _numbers([*known[''], codec.eos[0]])
    self._rows = [*map(_numbers, rows)]

  def draw(
    self,
    prefix: Sequence[int],
    asks: Sequence[Ask],
    *,
    samples: int,
    withdrawn: Collection[int],
    **unused: Any,
  ) -> Iterator[list[Sampled]]:
    """Yields calls, in each of which one sample of some problems ends."""
    for start in range(0, len(asks), _AT_ONCE):
      places = range(start, min(start + _AT_ONCE, len(asks)))
      for sample in range(samples):
        before = time.thread_time()
        call = [self._sampled(place, sample) for place in places]
        self.seconds += time.thread_time() - before
        yield call

  def _sampled(self, place: int, sample: int) -> Sampled:
    row = self._rows[(place * 31 + sample * 257) % _ROWS]
    end = self._ends[place] if (place + sample) % 2 else self._wrong
    return Sampled(place, sample, np.concatenate([row, end]), _NONE)


def _numbers(values: list[int]) -> NDArray[np.int32]:
  return np.array(values, np.int32)
