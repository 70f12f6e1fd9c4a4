"""Judges the answer that a solution claims against a reference.

Equal are the same text, exact values, points, intervals and the rest, by what
they are; what the grammar cannot read is different, which docs/math_answers.md
justifies. All of it is quick, whatever the text. What this stops: answers that
name several values, hedge, or take back what they claim. What it does not: a
right answer behind wrong reasoning.
"""

import functools
import re

from rest.types import Verdict
from rest.verify.math import clean, compare
from rest.verify.math.answer import extract
from rest.verify.math.lex import Unreadable

__all__ = ['VERSION', 'extract', 'is_equivalent', 'judge']

VERSION = 'math-4'  # 3 asked math-verify about what our grammar cannot read.

_LENGTH = 2000  # Characters of an answer; the longest reference has 160.
_SPACES = re.compile(r'(?<!\w)\s+|\s+(?!\w)')  # Those that separate nothing.


def is_equivalent(gold: str, prediction: str) -> bool:
  """Returns whether a prediction claims what the reference says.

  Args:
    gold: A reference answer, or a solution that claims it.
    prediction: An answer, or a solution that claims it.
  """
  answer = extract(prediction)
  return answer is not None and judge(gold, answer).reward == 1


def judge(gold: str, answer: str) -> Verdict:
  """Returns the verdict on an extracted answer."""
  if len(answer) > _LENGTH:
    return Verdict(0.0, 'too long', VERSION)
  left, right = _cleaned(gold), clean.clean(answer)
  if len(left) > _LENGTH:
    return Verdict(None, 'unreadable reference', VERSION)
  if not left or not right:
    return Verdict(0.0 if left else None, 'no answer', VERSION)
  if _SPACES.sub('', left) == _SPACES.sub('', right):
    return Verdict(1.0, 'same text', VERSION)
  try:
    equal = compare.equal(left, right)
  except Unreadable:
    return Verdict(0.0, 'unreadable', VERSION)
  return Verdict(float(equal), 'equal' if equal else 'different', VERSION)


@functools.lru_cache(maxsize=4096)
def _cleaned(gold: str) -> str:
  """Returns the answer of a reference, or '' where it has none."""
  return clean.clean(extract(clean.unescaped(gold)) or '')
