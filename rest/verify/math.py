"""Judges the answer that a solution claims against a reference.

Cheap tests come first and decide nearly all: equal text, exact values. What
they leave is decided by math-verify, in a process that can be killed.
"""

import atexit
import re
import threading
import time

from rest.types import Verdict
from rest.verify import math_clean, math_compare, math_extract
from rest.verify.child import Child
from rest.verify.math_lex import Unreadable

VERSION = 'math-1'

_SECONDS = 1.9  # For one call of is_equivalent, the worker's start included.
_ATTEMPT_SECONDS = 0.9  # Ordinary answers need at most a third of it.
_MEMORY = 512  # MiB.
_SPACES = re.compile(r'(?<!\w)\s+|\s+(?!\w)')  # Those that separate nothing.

extract = math_extract.extract


def is_equivalent(gold: str, prediction: str) -> bool:
  """Returns whether a prediction claims what the reference says.

  Answers within two seconds, whatever the texts: a comparison that takes longer
  is tried once more and then counts as not equal. Pools tell that case apart.

  Args:
    gold: A reference answer, or a solution that claims it.
    prediction: An answer, or a solution that claims it.
  """
  answer = extract(prediction)
  if answer is None:
    return False
  message = {'verifier': 'math', 'gold': gold, 'text': answer}
  with _lock:
    deadline = time.monotonic() + _SECONDS
    while (seconds := deadline - time.monotonic()) > 0:
      child = _child()
      if not child.wait_ready(seconds):
        continue
      seconds = min(_ATTEMPT_SECONDS, deadline - time.monotonic())
      reply = child.ask(message, seconds)
      if reply is not None:
        return reply['reward'] == 1
  return False


def judge(gold: str, answer: str) -> Verdict:
  """Returns the verdict on an extracted answer.

  Bounded except for its last step, which needs a process that can be killed.
  """
  reference = extract(gold)
  if reference is None:
    return Verdict(None, 'unreadable reference', VERSION)
  left, right = math_clean.clean(reference), math_clean.clean(answer)
  if not left or not right:
    return Verdict(0.0 if left else None, 'empty', VERSION)
  if _SPACES.sub('', left) == _SPACES.sub('', right):
    return Verdict(1.0, 'same text', VERSION)
  try:
    equal = math_compare.equal(left, right)
  except Unreadable:
    return _symbolic(left, right)
  return Verdict(float(equal), 'equal' if equal else 'different', VERSION)


def _symbolic(gold: str, answer: str) -> Verdict:
  from rest.verify import math_symbolic  # Imports sympy: workers only.

  if not (math_symbolic.affordable(gold) and math_symbolic.affordable(answer)):
    return Verdict(0.0, 'outside the limits', VERSION)
  equal = math_symbolic.equal(gold, answer)
  if equal is None:
    return Verdict(None, 'unreadable reference', VERSION)
  reason = 'equal by math-verify' if equal else 'different by math-verify'
  return Verdict(float(equal), reason, VERSION)


def warm_up() -> None:
  """Does what is slow the first time."""
  _symbolic(r'\frac{x}{2}', '0.5x')


_lock = threading.Lock()
_children: list[Child] = []  # The worker of is_equivalent, once there is one.


def _child() -> Child:
  if not _children:
    atexit.register(_close)
  if not _children or not _children[0].alive:
    _children[:] = [Child(('math',), memory=_MEMORY, nice=0)]
  return _children[0]


def _close() -> None:
  for child in _children:
    child.close()
