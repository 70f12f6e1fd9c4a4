"""Judges the answer that a solution claims against a reference.

Cheap tests come first and decide nearly all: equal text, exact values. What
they leave is decided by math-verify, in a process that can be killed.
"""

import atexit
import threading
import time

from rest.types import Verdict
from rest.verify import math_clean, math_extract
from rest.verify.child import Child

VERSION = 'math-1'

_SECONDS = 1.9  # For one call of is_equivalent, the worker's start included.
_ATTEMPT_SECONDS = 0.9  # Ordinary answers need at most a third of it.
_MEMORY = 512  # MiB.

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
  """Returns the verdict on an extracted answer. May take for ever."""
  from rest.verify import math_symbolic  # Imports sympy: workers only.

  reference = extract(gold)
  if reference is None:
    return Verdict(None, 'unreadable reference', VERSION)
  left, right = math_clean.clean(reference), math_clean.clean(answer)
  if left == right:
    return Verdict(1.0, 'same text', VERSION)
  if not (math_symbolic.affordable(left) and math_symbolic.affordable(right)):
    return Verdict(0.0, 'too costly', VERSION)
  equal = math_symbolic.equal(left, right)
  return Verdict(float(bool(equal)), 'equal' if equal else 'different', VERSION)


def warm_up() -> None:
  """Does what is slow the first time."""
  judge(r'\frac{x}{2}', '0.5x')


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
