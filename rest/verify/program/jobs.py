"""The jobs that a fork server does for the judge, and what they find imported.

The fork server imports this room before it locks itself away, then forgets it:
a program finds nothing of it.
"""

import contextlib
import importlib
import sys
from collections.abc import Sequence

from rest.verify.program import candidate, chance, interpreter, tester

_STDLIB = (
  'abc', 'array', 'ast', 'base64', 'bisect', 'calendar', 'cmath',
  'collections.abc', 'contextlib', 'copy', 'dataclasses', 'datetime',
  'decimal', 'enum', 'fractions', 'functools', 'hashlib', 'heapq', 'itertools',
  'json', 'logging', 'math', 'numbers', 'operator', 'pprint', 'queue',
  'random', 're', 'statistics', 'string', 'struct', 'textwrap', 'time',
  'traceback', 'types', 'typing', 'unicodedata', 'uuid', 'warnings', 'weakref',
)  # fmt: skip
# What a child does once it is locked in. Each gets the descriptors of its job.
_ROLES = {
  'script': interpreter.run_script,
  'call': candidate.call,
  'serve': candidate.serve,
  'test': tester.run,
}


def warm_up(modules: Sequence[str]) -> None:
  """Imports what programs like to import, and pins what they draw."""
  for name in _STDLIB:
    importlib.import_module(name)
  for name in modules:
    with contextlib.suppress(ImportError):
      importlib.import_module(name)
  sys.set_int_max_str_digits(0)
  chance.pin()


def run(role: str, descriptors: list[int]) -> int:
  """Does a job in the process that was forked for it; returns its status."""
  chance.restart()
  return _ROLES[role](descriptors)
