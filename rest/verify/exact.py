"""Judges answers that must match word for word, as in BIG-Bench Hard."""

import re

from rest.types import Verdict

VERSION = 'exact-1'

_ANSWER = re.compile(r'the answer is\b[:\s]*', re.IGNORECASE)
_OPTION = re.compile(r'\(([A-Z])\)')


def extract(text: str) -> str | None:
  """Returns what follows the last 'the answer is' on its line.

  A text of one line without that phrase is taken to be the answer itself, as
  models write it after direct prompts.
  """
  text = text.strip()
  marks = list(_ANSWER.finditer(text))
  if not marks:
    return text if text and '\n' not in text else None
  lines = text[marks[-1].end() :].splitlines()
  return lines[0].strip() if lines and lines[0].strip() else None


def judge(gold: str, answer: str) -> Verdict:
  """Returns whether two answers are the same words or the same option."""
  if not gold.strip():
    return Verdict(None, 'empty reference', VERSION)
  equal = _normalise(gold) == _normalise(answer)
  return Verdict(float(equal), 'equal' if equal else 'different', VERSION)


def _normalise(answer: str) -> str:
  options = set(_OPTION.findall(answer))
  if len(options) == 1 and _OPTION.match(answer.strip()):
    return options.pop().lower()
  return ' '.join(answer.lower().split()).rstrip('.').strip(' "\'')
