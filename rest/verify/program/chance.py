"""Pins the sources of chance that Python programs reach, so that verdicts last.

`random`, `numpy.random`, and whatever asks the operating system through `os`
(`secrets`, `uuid`, new generators of NumPy) draw the same numbers in each run;
hashes of texts are pinned when the fork server starts. Left to chance: time and
load, process ids, the order of threads, addresses (and so the order of a set of
objects whose class has no hash of its own), /dev/random and /dev/urandom opened
as files, and seeds of interpreters that a program starts.

Stops: a program that draws until it is lucky, in another run. Does not stop: a
program that runs otherwise by time or load.
"""

import itertools
import os
import random
import sys
from typing import Any

_entropy = random.Random(0)
_seeds = itertools.count(1)
_seed = random.Random.seed


def pin() -> None:
  """Puts pinned sources in the places of Python's."""
  # Python gives every fork new seeds; ours differ too, but are the same ones.
  os.register_at_fork(
    before=lambda: next(_seeds), after_in_child=lambda: random.seed()
  )
  random.Random.seed = _seed_pinned
  random.seed = random._inst.seed  # type: ignore
  os.urandom = random._urandom = _draw_bytes  # type: ignore
  os.getrandom = _draw_bytes


def restart() -> None:
  """Makes this process draw what every other one draws."""
  global _seeds
  _seeds = itertools.count(1)
  _seed(_entropy, 0)
  random.seed(0)
  if 'numpy' in sys.modules:
    sys.modules['numpy'].random.seed(0)


def _seed_pinned(self: random.Random, a: Any = None, version: int = 2) -> None:
  """Seeds a generator; where no seed is given, by how many had none before."""
  _seed(self, next(_seeds) if a is None else a, version)


def _draw_bytes(size: int, flags: int = 0) -> bytes:
  """Returns bytes as the operating system would."""
  return _entropy.randbytes(size)
