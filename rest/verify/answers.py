"""The answers in texts, and which of them are one answer; programs have none.

Answers are equal where the verifier says so: '1/2', '0.5' and '\\frac{1}{2}'
get one vote together. It is asked in the pool, whose workers can be killed.
"""

import functools
import re
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from fractions import Fraction
from typing import Protocol

from rest import metrics
from rest.types import Graded, Verdict
from rest.verify import exact, math
from rest.verify.pool import LATE
from rest.verify.request import Request


class Judge(Protocol):
  """A pool, or what stands for several."""

  def submit(self, request: Request) -> Future[Verdict]:
    """Asks for a verdict."""
    ...


EXTRACT = {'math': math.extract, 'exact': exact.extract}

# Short enough that the verifier compares them digit by digit.
_NUMBER = re.compile(r'-?\d{1,12}(?:\.\d{1,6})?')


def alike(texts: Sequence[str], verifier: str, pool: Judge) -> list[str]:
  """Returns the answer of each text, equal ones written alike; '' for none.

  Equality is not transitive ('5 cm' and '5 m' both equal '5'), so each answer
  joins the commonest spelling that it equals; of spellings as common, the first
  in the alphabet. The result does not depend on the order of the texts.

  Args:
    texts: Completions to one problem, without thoughts.
    verifier: Key of `EXTRACT`.
    pool: Judges by that verifier.
  """
  answers = [EXTRACT[verifier](text) or '' for text in texts]
  counts = Counter(answers)
  known = {'': ''}
  others: list[str] = []  # The spellings that others may join, in order.
  for answer in sorted(set(counts) - {''}, key=lambda a: (-counts[a], a)):
    same, late = _first_equal(answer, others, verifier, pool)
    known[answer] = answer if same is None else same
    if late:  # What keeps the verifier busy is compared once.
      others = [other for other in others if other not in late]
    elif same is None:
      others.append(answer)
  return [known[answer] for answer in answers]


def vote(rows: Sequence[Graded], pool: Judge) -> float | None:
  """Returns the chance that the commonest answer to a problem is right.

  Args:
    rows: Its samples; those without a verdict have no vote.
    pool: Judges by their verifier.

  Returns:
    None where no sample has a verdict.
  """
  rows = [row for row in rows if row.verdict.reward is not None]
  if not rows:
    return None
  texts = [row.answer for row in rows]
  answers = alike(texts, verifier_of(rows), pool)
  return metrics.majority(answers, [row.verdict.reward == 1.0 for row in rows])


def reader(
  rows: Sequence[Graded], pool: Judge
) -> Callable[[Sequence[str]], list[str]] | None:
  """Returns `alike` for the verifier of samples; None for programs."""
  name = verifier_of(rows)
  if name not in EXTRACT:
    return None
  return functools.partial(alike, verifier=name, pool=pool)


def verifier_of(rows: Sequence[Graded]) -> str:
  """Returns the name of the verifier that judged samples, without version."""
  return rows[0].verdict.verifier.split('-')[0]


def _first_equal(
  answer: str, others: Sequence[str], verifier: str, pool: Judge
) -> tuple[str | None, set[str]]:
  """Returns the first of others that an answer equals, or None.

  And those against which it could not be judged in time.
  """
  value = _value(answer) if verifier == 'math' else None
  asked: dict[str, Future[Verdict]] = {}
  for other in others:
    if value is not None and (number := _value(other)) is not None:
      if number != value:
        continue
      break
    asked[other] = pool.submit(Request(verifier, answer, gold=other))
  else:
    other = None
  verdicts = {gold: future.result() for gold, future in asked.items()}
  late = {gold for gold, verdict in verdicts.items() if verdict.reason == LATE}
  equal = (gold for gold, verdict in verdicts.items() if verdict.reward == 1.0)
  return next(equal, other), late


def _value(answer: str) -> Fraction | None:
  """Returns the value of a plain number, for which nobody need be asked."""
  return Fraction(answer) if _NUMBER.fullmatch(answer) else None
