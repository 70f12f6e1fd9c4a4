"""What becomes of each sample: kept to train on, with a weight, or why not."""

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rest.config import EStepConfig
from rest.types import Graded, Kept

KEPT = 'kept'
OVER_CAP = 'over the cap'
OUTVOTED = 'outvoted'  # Right, but another answer was the commonest.
DUPLICATE = 'duplicate'
UNFINISHED = 'cut off'
INCORRECT = 'incorrect'
UNKNOWN = 'unknown'

# Gives the answers of texts, equal ones written alike and '' for none: see
# `rest.verify.answers.alike`.
Reader = Callable[[Sequence[str]], list[str]]

_SPACES = re.compile(r'\s')
# As in '3 + 4 * 2 = 11': numbers and operations, a sign, a number. What has no
# sign is matched as well, so that no part of it is looked at again.
_EQUATION = re.compile(r'[\d(][\d\s.,()%/*+\-]*+(=\s*-?[\d.,]*\d)?')


@dataclass(frozen=True, slots=True)
class Choice:
  """What became of a sample.

  Attributes:
    row: The sample.
    weight: What it would weigh in training, f of its reward.
    fate: KEPT, or why not.
  """

  row: Graded
  weight: float
  fate: str

  @property
  def kept(self) -> bool:
    """Whether it is trained on."""
    return self.fate == KEPT


def choose(
  rows: Sequence[Graded],
  config: EStepConfig,
  answers: Reader | None = None,
) -> list[Choice]:
  """Returns what became of each sample of a problem, in order of sample.

  Kept are distinct, finished samples that weigh something. Where there are more
  than the cap, those of the largest weight are taken, and of equals the first
  by sample index. Samples are drawn independently, so these are a random
  choice; and they do not depend on which samples were quick.

  Invariant: what is seen before a sample, in order of choice, decides it; and
  of what is not kept, a wrong sample is told as wrong, whatever else it is.

  Example: 'a', 'a', 'b' (wrong), 'c' and 'd' with a cap of 2 are kept, a
  duplicate, incorrect, kept and over the cap.

  Args:
    rows: All samples of the problem, in any order.
    config: What is kept.
    answers: Gives the answers of texts for votes.
  """
  rows = sorted(rows, key=lambda row: row.sample)
  weights = weigh(rows, config.weight, answers)
  same = _SAMENESS[config.distinct]
  fates = [''] * len(rows)
  seen: set[object] = set()
  kept = 0
  for index in sorted(range(len(rows)), key=lambda i: -weights[i]):
    row = rows[index]
    common = same(row.completion.text.strip()) if same else index
    if not row.completion.finished:
      fate = UNFINISHED
    elif not weights[index]:
      fate = OUTVOTED
    elif common in seen:
      fate = DUPLICATE
    else:
      fate = OVER_CAP if kept == config.cap > 0 else KEPT
      kept += fate == KEPT
      seen.add(common)
    if fate != KEPT and row.verdict.reward != 1.0:
      fate = UNKNOWN if row.verdict.reward is None else INCORRECT
    fates[index] = fate
  return list(map(Choice, rows, weights, fates))


def meets_cap(rows: Sequence[Graded], config: EStepConfig) -> bool:
  """Whether no further sample is to be drawn: none could enter the dataset."""
  if not config.stop_at_cap:
    return False
  return sum(choice.kept for choice in choose(rows, config)) == config.cap


def weigh(
  rows: Sequence[Graded],
  weight: str,
  answers: Reader | None = None,
) -> list[float]:
  """Returns f(r) of each sample of a problem; 0 where r is not known.

  Raises:
    ValueError: A vote was asked for where there are no answers.
  """
  rewards = [row.verdict.reward for row in rows]
  best = max((r for r in rewards if r is not None), default=0.0)
  if weight == 'majority':
    return _votes(rows, answers)
  f = {
    'identity': lambda r: r,
    'exponential': math.exp,
    'best': lambda r: float(r == best),
  }[weight]
  return [0.0 if r is None else f(r) for r in rewards]


def equations(text: str) -> tuple[str, ...] | str:
  """Returns the equations of a solution in order; the text if it has none."""
  found = tuple(
    _SPACES.sub('', match.group())
    for match in _EQUATION.finditer(text)
    if match.group(1)
  )
  return found or text


def to_kept(row: Graded, weight: float = 1.0, hinted: bool = False) -> Kept:
  """Returns what a dataset holds of a sample."""
  completion = row.completion
  return Kept(
    problem_id=row.problem_id,
    sample=row.sample,
    prompt=row.prompt,
    text=completion.text,
    tokens=completion.tokens,
    weight=weight,
    hinted=hinted,
  )


def _votes(rows: Sequence[Graded], answers: Reader | None) -> list[float]:
  """Returns 1 for samples with the commonest answer, the first of equals."""
  if answers is None:
    raise ValueError(
      "estep.weight='majority' needs answers to vote on; programs have none."
    )
  voters = [row for row in rows if row.verdict.reward is not None]
  found = answers([row.completion.text for row in voters])
  votes = Counter(answer for answer in found if answer)
  winner = votes.most_common(1)[0][0] if votes else None
  won = {
    row.sample
    for row, answer in zip(voters, found, strict=True)
    if answer == winner
  }
  return [float(row.sample in won) for row in rows]


# What two solutions have in common that count once; None where all count.
_SAMENESS: dict[str, Callable[[str], object] | None] = {
  'text': str,
  'equations': equations,
  'off': None,
}
