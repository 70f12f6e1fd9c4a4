"""Whether what a program printed or returned is what was expected.

This runs in the trusted process, on text and on JSON: nothing of the program is
rebuilt as a Python object first, but single numbers and items of sets. What was
expected leads, so that the work is bounded by it, whatever came.

Stops: subclasses, results that are equal to all, colliding hashes, outputs of
gigabytes, numbers of a million digits. Does not stop: a real number within
TOLERANCE of the one expected, by whatever way it was found.
"""

import functools
import io
import itertools
import json
import math
import re
import sys
from collections.abc import Iterator
from typing import Any

from rest.verify.program.wire import MAPPINGS, Values, Violation

TOLERANCE = 1e-6  # Relative, and absolute below 1.
_REAL = re.compile(r'[+-]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][+-]?\d+)?')
_LONG = 4300  # Characters; Python reads no number that is longer.
_MOST_COLLIDING = 100
_NO_DATA = object()  # Equal to nothing.
_NUMBERS = {int, float, bool}
_KINDS: dict[str, type] = {'t': tuple, 's': set, 'f': set} | dict.fromkeys(
  MAPPINGS, dict
)


def prints(output: bytes, expected: str) -> bool:
  """Whether an output is right: the same words in the same lines.

  White space around words and empty lines do not count. A word that is a real
  number where one is expected (`0.5`, `1e-3`; integers are exact) may differ by
  TOLERANCE.
  """
  try:
    printed = _lines(output.decode())
  except UnicodeDecodeError:
    return False
  for line, wanted in itertools.zip_longest(printed, _lines(expected)):
    if line is None or wanted is None:
      return False
    words = wanted.split()
    # No further than is wanted: a line may be all of an output.
    found = line.split(None, len(words))
    if len(found) != len(words) or not all(map(_same_word, found, words)):
      return False
  return True


def returns(tree: Any, expected: str) -> bool:
  """Whether an encoded result of a call is right.

  A tuple is a list, as in JSON. Some sets wrap every result in a list of one,
  so that a result may be that one. Keys of dictionaries may be numbers where
  JSON has made texts of them. Truth values are no numbers.

  Args:
    tree: As `wire.Values` makes it.
    expected: JSON.
  """
  wanted = parse(expected)
  if _same_json(tree, wanted):
    return True
  wrapped = isinstance(wanted, list) and len(wanted) == 1
  return wrapped and _same_json(tree, wanted[0])


def parse(text: str) -> Any:
  """Returns the value of trusted JSON, with integers of any length."""
  limit = sys.get_int_max_str_digits()
  sys.set_int_max_str_digits(0)
  try:
    return json.loads(text)
  finally:
    sys.set_int_max_str_digits(limit)


def restored(value: Any) -> Any:
  """Returns a value of JSON with integers for keys that JSON made texts of."""
  if type(value) is list:
    return [restored(x) for x in value]
  if type(value) is not dict:
    return value
  whole = all(re.fullmatch(r'0|-?[1-9]\d{0,18}', key) for key in value)
  return {int(k) if whole else k: restored(x) for k, x in value.items()}


def equal(tree: Any, wanted: Any) -> bool:
  """Whether an encoded value is equal to a value, as Python compares them."""
  kind, content = _opened(tree)
  if type(wanted) in (list, tuple):
    as_long = kind is type(wanted) and len(content) == len(wanted)
    return as_long and all(map(equal, content, wanted))
  if type(wanted) in (set, frozenset):
    return kind is set and _same_items(content, wanted)
  if type(wanted) is dict:
    return kind is dict and _same_pairs(content, wanted)
  try:
    return kind is None and content == wanted
  except ArithmeticError:  # Of a Decimal that signals.
    return False


def close(tree: Any, wanted: Any, relative: float, absolute: float) -> bool:
  """Whether numbers are close to others, alone or in lists, as in NumPy."""
  kind, content = _opened(tree)
  if type(wanted) in (list, tuple):
    near = functools.partial(close, relative=relative, absolute=absolute)
    as_long = kind in (list, tuple) and len(content) == len(wanted)
    return as_long and all(map(near, content, wanted))
  found = number(tree)
  if found is None or type(wanted) not in _NUMBERS:
    return False
  if found == wanted:
    return True
  try:
    return abs(found - wanted) <= absolute + relative * abs(wanted) < math.inf
  except OverflowError:
    return False


def number(tree: Any) -> int | float | None:
  """Returns the number that an encoded value is, if it is one."""
  kind, content = _opened(tree)
  return content if kind is None and type(content) in _NUMBERS else None


def truth(tree: Any) -> bool | None:
  """Returns whether an encoded value is true, or None where it is no data."""
  _, content = _opened(tree)
  return None if content is _NO_DATA else bool(content)


def _opened(tree: Any) -> tuple[type | None, Any]:
  """Returns the type of a container and what it holds, or None and a value."""
  if type(tree) is list:
    return list, tree
  if type(tree) is not dict or len(tree) != 1:
    return None, _NO_DATA if type(tree) is dict else tree
  ((tag, content),) = tree.items()
  if type(content) is list and tag in _KINDS:
    return _KINDS[tag], content
  if tag == 'v' and content[:1] in (['keys'], ['items']):
    return set, content[1]
  if tag in ('i', 'bytes', 'bytearray') or (tag == 'b' and _is_brief(content)):
    try:
      return None, Values().decode(tree)
    except Violation:
      pass
  return None, _NO_DATA


def _is_brief(content: Any) -> bool:
  """Whether an object of a few short fields is quick to build."""
  return type(content[1]) is list and all(
    type(x) in _NUMBERS or (type(x) is str and len(x) < _LONG)
    for x in content[1]
  )


def _hashable(tree: Any) -> Any:
  """Returns an item of a set, or a key.

  Raises:
    Violation: It is none, or one that may be slow to build.
  """
  kind, content = _opened(tree)
  if kind is tuple:
    return tuple(map(_hashable, content))
  # Integers can be chosen so that each collides with all others.
  if kind is set and len(content) <= _MOST_COLLIDING:
    return frozenset(map(_hashable, content))
  if kind is not None or content is _NO_DATA:
    raise Violation('It cannot be hashed.')
  return content


def _same_items(items: list, wanted: set | frozenset) -> bool:
  if len(items) != len(wanted):
    return False
  try:
    found = list(map(_hashable, items))
  except (RecursionError, Violation):
    return False
  # Only what is wanted enters a set, so that its hashes are no attack.
  return all(x in wanted for x in found) and len(set(found)) == len(wanted)


def _same_pairs(
  pairs: list, wanted: dict[Any, Any], key: Any = _hashable, same: Any = equal
) -> bool:
  if len(pairs) != len(wanted):
    return False
  seen = set()
  for pair in pairs:
    if type(pair) is not list or len(pair) != 2:
      return False
    try:
      name = key(pair[0])
    except (RecursionError, Violation):
      return False
    if name not in wanted or not same(pair[1], wanted[name]):
      return False
    seen.add(name)
  return len(seen) == len(wanted)


def _same_json(tree: Any, wanted: Any) -> bool:
  kind, content = _opened(tree)
  if type(wanted) is list:
    as_long = kind in (list, tuple) and len(content) == len(wanted)
    return as_long and all(map(_same_json, content, wanted))
  if type(wanted) is dict:
    return kind is dict and _same_pairs(content, wanted, _key, _same_json)
  if type(content) is bool or type(wanted) is bool:
    return content is wanted
  if type(wanted) is float and type(content) in (int, float):
    return _close(content, wanted)
  # An integer is exact, also when it comes as 3.0.
  return equal(tree, wanted)


def _key(tree: Any) -> str:
  """Returns a key as JSON has it."""
  return tree if type(tree) is str else json.dumps(tree)


def _lines(text: str) -> Iterator[str]:
  return (line for line in io.StringIO(text) if not line.isspace())


def _same_word(printed: str, expected: str) -> bool:
  if printed == expected:
    return True
  if not _REAL.fullmatch(expected) or len(printed) > _LONG:
    return False
  try:
    return _close(float(printed), float(expected))
  except ValueError:
    return False


def _close(a: float, b: float) -> bool:
  try:
    near = abs(a - b) <= TOLERANCE * max(1.0, abs(b)) < math.inf
  except OverflowError:  # Of an integer that no float can hold.
    return False
  return near or a == b
