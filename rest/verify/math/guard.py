"""Turns away what math-verify must not be asked.

Some short texts keep sympy busy for minutes and gigabytes. No problem set has
them for answers, so that they can be refused by how they look; what still gets
through is a matter for the pool's deadline.
"""

import re

_LENGTH = 300
_DEPTH = 12
_REFUSED = re.compile(
  r'\\(?:int|iint|oint|sum|prod|lim|det|bmod|pmod|mod)(?![a-zA-Z])'
  r'|\d{60}'  # Roots of such numbers are factored.
  r'|[)\]}!]\s*!'  # Factorials of brackets and of factorials.
  r'|\d{4}\s*!'
  r'|\^\s*\{?\s*[^{}]*\d{4}'  # Large exponents.
  r'|\^[^+\-*/=,&]*\^'  # Towers.
  r'|\*\*'
)
# Words would be dropped: '12 or so' would be 12.
_WORD = re.compile(
  r'(?<![\\a-zA-Z])[a-zA-Z]{3,}|\\(?:text|approx|sim|equiv|ldots)'
)


def affordable(answer: str) -> bool:
  """Returns whether math-verify can be trusted with a cleaned answer."""
  if len(answer) > _LENGTH or _REFUSED.search(answer) or _WORD.search(answer):
    return False
  depth = deepest = 0
  for character in answer:
    depth += (character in '{([') - (character in '})]')
    deepest = max(deepest, depth)
  return deepest <= _DEPTH
