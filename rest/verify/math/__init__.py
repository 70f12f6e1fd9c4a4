"""Judges the answer that a solution claims against a reference.

Our own tests come first and decide nearly all: equal text, exact values, points
and intervals and the rest by what they are. They are quick whatever the text.
What they cannot read goes to math-verify, in a process that can be killed.
"""

import atexit
import functools
import re
import threading

from rest.types import Verdict
from rest.verify.child import Child
from rest.verify.math import clean, compare, guard
from rest.verify.math.answer import extract
from rest.verify.math.lex import Unreadable

VERSION = 'math-3'

_SECONDS = 0.9  # For one attempt; ordinary answers need a third of it.
_LENGTH = 2000  # Characters of an answer; the longest reference has 160.
_MEMORY = 512  # MiB.
_SPACES = re.compile(r'(?<!\w)\s+|\s+(?!\w)')  # Those that separate nothing.


def is_equivalent(gold: str, prediction: str) -> bool:
  """Returns whether a prediction claims what the reference says.

  Answers within two seconds, whatever the texts: a comparison that takes longer
  is tried once more and then counts as not equal. A `Pool` tells that apart.

  Args:
    gold: A reference answer, or a solution that claims it.
    prediction: An answer, or a solution that claims it.
  """
  answer = extract(prediction)
  if answer is None:
    return False
  verdict = _decided(gold, answer)
  if verdict is not None:
    return verdict.reward == 1
  message = {'verifier': 'math', 'gold': gold, 'text': answer}
  with _lock:
    for _ in range(2):
      reply = _worker().ask(message, _SECONDS)
      if reply is not None:
        return reply['reward'] == 1
  return False


def judge(gold: str, answer: str) -> Verdict:
  """Returns the verdict on an extracted answer.

  Its last step, math-verify, needs a process that can be killed.
  """
  verdict = _decided(gold, answer)
  if verdict is not None:
    return verdict
  from rest.verify.math import symbolic  # Imports sympy: workers only.

  left, right = _cleaned(gold), clean.clean(answer)
  equal = symbolic.equal(left, right)
  if equal is None and not compare.is_readable(left):
    return Verdict(None, 'unreadable reference', VERSION)
  reason = 'equal by math-verify' if equal else 'different by math-verify'
  return Verdict(float(bool(equal)), reason, VERSION)


def warm_up() -> None:
  """Does what is slow the first time: imports, and the parser's tables."""
  from rest.verify.math import symbolic

  symbolic.equal(r'\frac{x}{2}', '0.5x')


def _decided(gold: str, answer: str) -> Verdict | None:
  """Returns the verdict where no symbolic step is needed; always quick."""
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
    if guard.affordable(left) and guard.affordable(right):
      return None
    return Verdict(0.0, 'outside the limits', VERSION)
  return Verdict(float(equal), 'equal' if equal else 'different', VERSION)


@functools.lru_cache(maxsize=4096)
def _cleaned(gold: str) -> str:
  """Returns the answer of a reference, or '' where it has none."""
  return clean.clean(extract(clean.unescaped(gold)) or '')


_lock = threading.Lock()
_children: list[Child] = []  # The worker of is_equivalent, and its spare.


def _worker() -> Child:
  """Returns a worker that is ready, a spare one where the last was killed."""
  if not _children:
    atexit.register(_close)
  _children[:] = [child for child in _children if child.alive]
  while len(_children) < 2:
    _children.append(Child(('math',), memory=_MEMORY, nice=0))
  if not _children[0].wait_ready():
    raise RuntimeError(
      'The verifier worker did not start; see its error above.'
    )
  return _children[0]


def _close() -> None:
  for child in _children:
    child.close()
