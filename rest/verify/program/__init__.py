"""Judges programs by assertions, by what they print, and by what they return.

run('add = lambda a, b: a + b', Tests('assert', 'assert add(1, 2) == 3'))
"""

import atexit
import functools

from rest.config import VerifyConfig
from rest.types import Tests, Verdict
from rest.verify.pool import Pool
from rest.verify.request import Request


def run(program: str, tests: Tests) -> Verdict:
  """Returns the verdict on one program.

  A pool of one worker starts with the first call and is kept for later ones.
  """
  return _pool().submit(Request('program', program, tests=tests)).result()


@functools.cache
def _pool() -> Pool:
  pool = Pool(VerifyConfig(workers=1), ('program',))
  atexit.register(pool.close)
  return pool
