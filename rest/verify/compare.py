"""Whether what a program printed or returned is what was expected.

Both run in the trusted process, on text and on JSON: nothing of the program is
rebuilt as a Python object first.
"""

import json
import math
import re
import sys
from typing import Any

TOLERANCE = 1e-6  # Relative, and absolute below 1.
_REAL = re.compile(r'[+-]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][+-]?\d+)?')
_LISTS = ('t',)  # Tags of `wire` that are lists in JSON.


def prints(output: bytes, expected: str) -> bool:
  """Whether an output is right: the same words in the same lines.

  White space around words and empty lines do not count. A word that is a real
  number where one is expected (`0.5`, `1e-3`; integers are exact) may differ by
  TOLERANCE.
  """
  try:
    printed = _words(output.decode())
  except UnicodeDecodeError:
    return False
  wanted = _words(expected)
  return len(printed) == len(wanted) and all(
    len(a) == len(b)
    and all(_same_word(x, y) for x, y in zip(a, b, strict=True))
    for a, b in zip(printed, wanted, strict=True)
  )


def returns(tree: Any, expected: str) -> bool:
  """Whether an encoded result of a call is right.

  A tuple is a list, as in JSON. Some sets wrap every result in a list of one,
  so that a result may be that one. Keys of dictionaries may be numbers where
  JSON has made texts of them. Truth values are no numbers.

  Args:
    tree: As `wire.encode` makes it.
    expected: JSON.
  """
  wanted = parse(expected)
  if _same(tree, wanted):
    return True
  wrapped = isinstance(wanted, list) and len(wanted) == 1
  return wrapped and _same(tree, wanted[0])


def parse(text: str) -> Any:
  """Returns the value of trusted JSON, with integers of any length."""
  limit = sys.get_int_max_str_digits()
  sys.set_int_max_str_digits(0)
  try:
    return json.loads(text)
  finally:
    sys.set_int_max_str_digits(limit)


def _words(text: str) -> list[list[str]]:
  lines = (line.split() for line in text.split('\n'))
  return [line for line in lines if line]


def _same_word(printed: str, expected: str) -> bool:
  if printed == expected:
    return True
  if not _REAL.fullmatch(expected):
    return False
  try:
    return _close(float(printed), float(expected))
  except ValueError:
    return False


def _close(a: float, b: float) -> bool:
  if not (math.isfinite(a) and math.isfinite(b)):
    return a == b
  return abs(a - b) <= TOLERANCE * max(1.0, abs(b))


def _same(tree: Any, wanted: Any) -> bool:
  if type(tree) is dict:
    if len(tree) != 1:
      return False
    ((tag, content),) = tree.items()
    if tag == 'i':
      return type(wanted) is int and _integer(content) == wanted
    if tag in ('d', 'C', 'O'):
      return type(wanted) is dict and _same_pairs(content, wanted)
    if tag not in _LISTS:
      return False
    tree = content
  if type(tree) is list or type(wanted) in (list, dict):
    return (
      type(tree) is list
      and type(wanted) is list
      and len(tree) == len(wanted)
      and all(_same(x, y) for x, y in zip(tree, wanted, strict=True))
    )
  if type(tree) is bool or type(wanted) is bool:
    return tree is wanted
  if type(wanted) is float and type(tree) in (int, float):
    return _close(tree, wanted)
  # An integer is exact, also when it comes as 3.0.
  return type(tree) is not dict and tree == wanted


def _same_pairs(pairs: Any, wanted: dict[str, Any]) -> bool:
  if type(pairs) is not list or len(pairs) != len(wanted):
    return False
  seen = set()
  for pair in pairs:
    if type(pair) is not list or len(pair) != 2:
      return False
    key = pair[0] if type(pair[0]) is str else json.dumps(pair[0])
    if key not in wanted or not _same(pair[1], wanted[key]):
      return False
    seen.add(key)
  return len(seen) == len(wanted)


def _integer(text: Any) -> int | None:
  try:
    return int(text, 16)
  except (TypeError, ValueError):
    return None
