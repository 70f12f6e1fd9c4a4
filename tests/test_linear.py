"""What reads a model's text beside the device takes time linear in its length.

Whatever the text: a pattern that is quadratic costs 25 seconds on 100,000
backticks, and the device waits.
"""

import pathlib
import time
from collections.abc import Callable

import pytest

from rest import tasks
from rest.e_step import choose
from rest.model import tokenizer
from rest.tasks import leaks
from rest.use import card
from rest.verify import exact, math

ROOT = pathlib.Path(__file__).parent
DATA = ROOT / 'data' / 'tasks'
LETTERS = tokenizer.load(str(ROOT.parent / 'rest/model/assets/arithmetic-1m'))

_HEADS = ('', '```python\n', 'def f', '1 + ', 'The answer is ', r'\boxed{')
_UNITS = (
  *('`', '```', '``` ', '```\n', '```python\n', ' ```\n', '````\n```\n', '~'),
  *(' ', '\n', ' \n', '\n\n', '\t', '\r\n', 'a', 'a ', 'a\n', 'A. ', 'é', '\0'),
  *('<think>', '</think>', '</think>"', '<', '<<', '<<1', '[asy]', '"', "'"),
  *('def ', 'def f', 'f =', 'f ', 'f:', 'class\n', 'input', 'input ', 'stdin'),
  *('1', '1 ', '1=', '1 = ', '=', '=-', '(', ')', '1.', '.', ',', '1,', '-'),
  *('\\', '\\boxed', '\\boxed{', '\\boxed{1} and ', '{', '}', '$', '$$', '\\['),
  *('#', '####', '#### ', '#### 1\n', '*', '_', '**', 'answer', 'answer: '),
  *('the answer is ', 'the answer is 1. ', 'wait, no ', 'is not ', '(A)', ': '),
)


def _program(name: str) -> Callable[[str], object]:
  config = tasks.TaskConfig(name, str(DATA / name), num_validation=0)
  task = tasks.make(config)
  first, *_ = task.problems('test')
  return lambda text: task.program(first, text)


_READERS: dict[str, Callable[[str], object]] = {
  **{
    f'program of {name}': _program(name)
    for name in ('mbpp', 'humaneval', 'apps')
  },
  'equations': choose.equations,
  'tokens': lambda text: LETTERS.decode(LETTERS.encode(text, follows=True)),
  'answer, math': math.extract,
  'answer, exact': exact.extract,
  'leaks': leaks._grams,
  'card': lambda text: card._fenced('text', text),
}


def _seconds(read: Callable[[str], object], text: str, times: int) -> float:
  """Returns the least CPU time that a text takes."""
  found = []
  for _ in range(times):
    started = time.thread_time()
    read(text)
    found.append(time.thread_time() - started)
  return min(found)


@pytest.mark.parametrize('name', _READERS)
def test_texts_eight_times_as_long_take_about_eight_times_as_long(name: str):
  read = _READERS[name]
  for head in _HEADS:
    for unit in _UNITS:
      long, short = (head + unit * (n // len(unit)) for n in (16_000, 2_000))
      # What is quicker could not be told from the clock's error, and nobody
      # would wait for it: a quadratic pattern takes 100 ms here.
      if _seconds(read, long, times=1) > 4e-3:
        ratio = _seconds(read, long, 3) / _seconds(read, short, 3)
        assert ratio < 24, (head, unit)  # Quadratic would be 64.
