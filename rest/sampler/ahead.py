"""Programs that are compiled before they are needed.

A list of asks begins with three programs and ends with one for each size of its
table: a dozen, of some seconds each.
"""

import os
import threading
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import NamedTuple

from rest.sampler.programs import Lowered, Named


class _Asked(NamedTuple):
  """A program that was asked for, and is not known to be there."""

  compiled: Future[None]
  lower: Callable[[], Lowered]


class Ahead:
  """Compiles on threads of its own, what is asked for first first.

  A jitted function finds what another thread has compiled of it: nothing is
  handed over, and what cannot be compiled is an error where it is needed.

  Programs are lowered by one thread at a time, and nothing is called for it
  that others call: two threads that call one jitted function at once, with
  static arguments that Python compares, crash JAX (0.11.2, about once in ten
  runs).
  """

  def __init__(self):
    workers = max(1, min(4, len(os.sched_getaffinity(0)) // 2))
    self._pool = ThreadPoolExecutor(workers, 'compile')
    self._lowering = threading.Lock()
    self._asked: dict[Hashable, _Asked | None] = {}  # None once it is there.

  def start(self, programs: Iterable[Named]) -> None:
    """Asks for programs; those that were asked for before are left out."""
    for key, lower in programs:
      if key not in self._asked:
        compiled = self._pool.submit(self._compile, lower)
        self._asked[key] = _Asked(compiled, lower)

  def wait(self, *key: Hashable) -> None:
    """Returns once a program that was asked for is there.

    One whose turn has not come is compiled here: nobody waits for others'.
    """
    asked = self._asked.get(key)
    if asked is None:
      return
    if asked.compiled.cancel():
      self._compile(asked.lower)
    else:
      wait([asked.compiled])
    self._asked[key] = None

  def close(self) -> None:
    """Compiles no more; waits for what is being compiled."""
    self._pool.shutdown(cancel_futures=True)

  def _compile(self, lower: Callable[[], Lowered]) -> None:
    with self._lowering:
      lowered = lower()
    lowered.compile()
