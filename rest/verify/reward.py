"""Judges by a function of the user's: (problem, text) -> float or None.

The function is the user's, the text is not: whatever it makes the function do
ends in a verdict, or in the end of this worker.
"""

import contextlib
import functools
import math
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from rest.types import Problem, Verdict
from rest.verify import user_file


@functools.cache  # Every request asks.
def version(name: str) -> str:
  """Returns what stands in verdicts for 'path/to/reward.py:reward'."""
  return f'reward-{user_file.digest(name)}'


def load(name: str) -> Callable[[Problem, str], Any]:
  """Returns the function that a verifier names.

  Raises:
    ValueError: There is none.
  """
  function = user_file.load(name, 'task.verifier')
  if not callable(function):
    raise ValueError(
      f'task.verifier={name!r} must be a function of problem and text, got '
      f'{function!r:.60}.'
    )
  return function


def judge(
  function: Callable[[Problem, str], Any],
  name: str,
  problem: Problem,
  text: str,
) -> Verdict:
  """Returns what a function says of a text; unknown where it fails."""
  try:
    with _silence():
      reward = function(problem, text)
      if reward is not None:
        reward = math.nan if isinstance(reward, str) else float(reward)
  except Exception as error:  # Whatever a text makes it do.
    where = user_file.line_of(error, name.rpartition(':')[0])
    why = f'{type(error).__name__} in {where.rpartition("/")[2]}'
    return Verdict(None, why, version(name))
  if reward is None:
    return Verdict(None, 'no reward', version(name))
  if not 0 <= reward <= 1:  # Nor is NaN.
    return Verdict(None, 'not in [0, 1]', version(name))
  return Verdict(reward, 'rewarded', version(name))


@contextlib.contextmanager
def _silence() -> Iterator[None]:
  """Sends what is printed nowhere: a text may have a gigabyte printed."""
  sys.stderr.flush()
  kept = os.dup(2)
  nothing = os.open(os.devnull, os.O_WRONLY)
  os.dup2(nothing, 2)
  os.close(nothing)
  try:
    yield
  finally:
    sys.stderr.flush()
    os.dup2(kept, 2)
    os.close(kept)
