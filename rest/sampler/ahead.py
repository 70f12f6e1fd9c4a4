"""Programs that are compiled before they are needed.

A list of asks begins with three programs and ends with one for each size of its
table: a dozen, of some seconds each.
"""

import os
from collections.abc import Hashable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

from rest.sampler.programs import Named


class Ahead:
  """Compiles on threads of its own, what is asked for first first.

  A jitted function finds what another thread has compiled of it: nothing is
  handed over, and what cannot be compiled is an error where it is called.
  """

  def __init__(self):
    workers = max(1, min(4, len(os.sched_getaffinity(0)) // 2))
    self._pool = ThreadPoolExecutor(workers, 'compile')
    self._asked: dict[Hashable, Future[Any]] = {}

  def start(self, programs: Iterable[Named]) -> None:
    """Asks for programs; those that were asked for before are left out."""
    for key, lower in programs:
      if key not in self._asked:
        compile_ = lambda lower=lower: lower().compile()  # noqa: E731
        self._asked[key] = self._pool.submit(compile_)

  def wait(self, *key: Hashable) -> None:
    """Returns once a program that was asked for is there."""
    if key in self._asked:
      wait([self._asked[key]])

  def close(self) -> None:
    """Compiles no more; waits for what is being compiled."""
    self._pool.shutdown(cancel_futures=True)
