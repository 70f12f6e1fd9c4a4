"""Refuses tests and programs that are none, before any of it runs.

Stops: tests that would let everything pass since they hold no case. Does not
stop: tests that are weak.
"""

from rest.types import Tests
from rest.verify.program import compare


def check(tests: Tests) -> None:
  """Raises ValueError where tests are malformed, naming the field."""
  kinds = ('assert', 'stdin', 'call')
  if tests.kind not in kinds:
    raise ValueError(f'Tests.kind must be one of {kinds}, got {tests.kind!r}.')
  if tests.kind == 'assert':
    if not (tests.script.strip() and is_text(tests.script)):
      raise ValueError('Tests.script must be a program, got nothing.')
    return
  if not tests.inputs or len(tests.inputs) != len(tests.outputs):
    raise ValueError(
      f'Tests.inputs and outputs must be as many, and not none; got '
      f'{len(tests.inputs)} and {len(tests.outputs)}.'
    )
  if tests.kind == 'stdin':
    return
  if not tests.entry_point.isidentifier():
    raise ValueError(
      f'Tests.entry_point must be a name, got {tests.entry_point!r}.'
    )
  for text in tests.inputs:
    if type(_json('inputs', text)) is not list:
      raise ValueError(
        f'Tests.inputs must be JSON lists of arguments, got {text[:60]!r}.'
      )
  for text in tests.outputs:
    _json('outputs', text)


def is_text(program: str) -> bool:
  """Whether a file can hold a program."""
  try:
    program.encode()
  except UnicodeEncodeError:
    return False  # Half of a surrogate pair, which no file can hold.
  return True


def _json(field: str, text: str) -> object:
  try:
    return compare.parse(text)
  except (ValueError, RecursionError) as error:
    raise ValueError(
      f'Tests.{field} must be JSON, got {text[:60]!r}: {error}'
    ) from error
