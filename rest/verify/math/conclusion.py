r"""Finds the formula that a text without any mark concludes with."""

import re

from rest.verify.math import assertion

_TAIL = 600  # Characters in which the last sentence begins.
_ALONE = 300  # Characters of a sentence that stands alone.

_FORMULA = re.compile(
  r'\$\$?(?!\s*\n)[^$]+\$\$?|\\\((?:[^\\]|\\(?!\)))+\\\)'
  r'|\\\[(?:[^\\]|\\(?!\]))+\\\]'
)
_THEREFORE = re.compile(
  r'\s*(?:therefore|thus|hence|so|finally|consequently|in conclusion)\b[, ]*',
  re.IGNORECASE,
)
_ENDS = re.compile(
  r'[.!?]["\'*)]*\s|\n|(?<=\s)(?=(?:So|Thus|Hence|Therefore)\b)'
)
_GIVES = re.compile(
  r'(?:\b(?:is|are|equals|find that|conclude that)|:)\s*$', re.IGNORECASE
)
_NUMBER_END = re.compile(r'(?<=[ ~$])[$£€]?-?\d+(?:,\d{3})*(?:[./]\d+)?%?$')
_IS_SOLUTION = re.compile(
  r'\s*(?:is|are) (?:the|our|my) (?:\w+ )?(?:solution|answer|result)s?'
)


def conclusion(text: str) -> str | None:
  r"""Returns the formula that a text without a mark concludes with.

  'Therefore $x \ge 5$ is the solution.' and 'Thus the matrix is $A$.' do, as
  last sentences, and 'The matrix is $A$.' where it is all.
  """
  tail = text[-_TAIL:].rstrip(' .!')
  finished = text.rstrip().endswith('.')
  ends = [0, *(end.end() for end in _ENDS.finditer(tail))]
  sentence = tail[ends[-1] :].strip()
  formulas = list(_FORMULA.finditer(sentence))
  number = _NUMBER_END.search(sentence) if finished else None
  if number and _THEREFORE.match(sentence):
    formulas = [number]
  if not formulas:
    return None
  formula = formulas[-1]
  lead, behind = sentence[: formula.start()], sentence[formula.end() :]
  if behind.strip():
    fits = _IS_SOLUTION.fullmatch(behind) and _THEREFORE.fullmatch(lead)
  else:
    alone = len(ends) == 1 and len(text) <= _ALONE
    fits = _GIVES.search(lead) and (alone or _THEREFORE.match(lead))
  if not fits or assertion.is_doubtful(lead):
    return None
  return formula.group()
