r"""Asks math-verify, where nothing cheaper could tell.

math-verify reads LaTeX with a grammar and never evaluates text, but some texts
keep it busy for minutes and gigabytes: a guard turns away what no problem set
has for an answer, and the caller runs in a process that can be killed.
"""

import functools
import logging
import re

from math_verify import LatexExtractionConfig, parse, verify

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
_WORD = re.compile(r'(?<![\\a-zA-Z])[a-zA-Z]{3,}|\\(?:text|approx|sim|equiv)')
_BOXED = LatexExtractionConfig(boxed_match_priority=0)
_logger = logging.getLogger('math_verify')
_logger.setLevel(logging.CRITICAL)


def affordable(answer: str) -> bool:
  """Returns whether sympy can be trusted with an answer."""
  if len(answer) > _LENGTH or _REFUSED.search(answer) or _WORD.search(answer):
    return False
  depth = deepest = 0
  for character in answer:
    depth += (character in '{([') - (character in '})]')
    deepest = max(deepest, depth)
  return deepest <= _DEPTH


def equal(gold: str, answer: str) -> bool | None:
  """Returns whether two answers are equal, or None where gold is unreadable."""
  parsed = _parse(gold)
  if not parsed:
    return None
  return verify(
    parsed,
    _parse(answer),
    float_rounding=30,
    numeric_precision=60,
    timeout_seconds=0,
  )


@functools.lru_cache(maxsize=1024)
def _parse(answer: str) -> list:
  return parse(
    f'\\boxed{{{answer}}}',
    extraction_config=[_BOXED],
    fallback_mode='no_fallback',
    parsing_timeout=0,  # Its alarms would end ours,
  )
