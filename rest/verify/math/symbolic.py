r"""Asks math-verify, where nothing cheaper could tell.

math-verify reads LaTeX with a grammar and never evaluates text, but some texts
keep it busy for minutes and gigabytes: the caller runs in a process that can be
killed, and asks only what `guard` lets through.
"""

import functools
import logging

from math_verify import LatexExtractionConfig, parse, verify

_BOXED = LatexExtractionConfig(boxed_match_priority=0)
_logger = logging.getLogger('math_verify')
_logger.setLevel(logging.CRITICAL)


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
