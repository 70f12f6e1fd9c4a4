"""Judges answers that must match word for word, as in BIG-Bench Hard."""

import re

from rest.types import Verdict

VERSION = 'exact-2'

_ANSWER = re.compile(r'the answer is\b[:\s]*', re.IGNORECASE)
_MARKS = '"\'*`'  # Quotes and emphasis around an answer.
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
  """Returns whether two answers are the same words or the same option.

  Behind the answer, its line may go on with another sentence, as models do that
  were taught to explain: 'valid. Let us sum up:' is 'valid'.
  """
  if not gold.strip():
    return Verdict(None, 'empty reference', VERSION)
  wanted, said = _normalise(gold), _normalise(answer)
  sentence = re.escape(wanted) + rf'[{_MARKS}]*\.\s'
  equal = said == wanted or re.match(sentence, said) is not None
  return Verdict(float(equal), 'equal' if equal else 'different', VERSION)


def _normalise(answer: str) -> str:
  answer = answer.lstrip(f' {_MARKS}')
  options = set(_OPTION.findall(answer))
  if len(options) == 1 and _OPTION.match(answer):
    return options.pop().lower()
  return ' '.join(answer.lower().split()).rstrip(f' .{_MARKS}')
