"""What of an E-step's samples is kept to train on, and how much it weighs."""

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence

from rest.config import EStepConfig
from rest.types import Graded, Kept

_SPACES = re.compile(r'\s')
# As in '3 + 4 * 2 = 11': numbers and operations, a sign, a number. What has no
# sign is matched as well, so that no part of it is looked at again.
_EQUATION = re.compile(r'[\d(][\d\s.,()%/*+\-]*+(=\s*-?[\d.,]*\d)?')


def keep(
  rows: Sequence[Graded],
  config: EStepConfig,
  answers: Callable[[Sequence[str]], list[str]] | None = None,
) -> list[Kept]:
  """Returns the distinct, finished samples of a problem worth training on.

  Where there are more than the cap, those of the largest weight are taken, and
  of equals the first by sample index. Samples are drawn independently, so these
  are a random choice; and they do not depend on which samples were quick.

  Args:
    rows: All samples of the problem, in any order.
    config: What is kept.
    answers: Gives the answers of texts for votes, equal ones written alike and
      '' for none; see `rest.verify.answers.alike`.
  """
  rows = sorted(rows, key=lambda row: row.sample)
  weights = weigh(rows, config.weight, answers)
  same = sameness(config.distinct)
  kept: list[Kept] = []
  seen: set[object] = set()
  for index in sorted(range(len(rows)), key=lambda i: -weights[i]):
    row = rows[index]
    if weights[index] == 0.0 or not row.completion.finished:
      continue
    common = same(row.completion.text.strip()) if same else None
    if common is not None and common in seen:
      continue
    seen.add(common)
    kept.append(to_kept(row, weights[index]))
    if len(kept) == config.cap:
      break
  return sorted(kept, key=lambda row: row.sample)


def meets_cap(rows: Sequence[Graded], config: EStepConfig) -> bool:
  """Whether no further sample is to be drawn: none could enter the dataset."""
  return config.stop_at_cap and len(keep(rows, config)) == config.cap


def sameness(distinct: str) -> Callable[[str], object] | None:
  """Returns what two solutions have in common that count once.

  Args:
    distinct: See `EStepConfig`; 'off' gives None: all count.
  """
  return {'text': str, 'equations': equations, 'off': None}[distinct]


def weigh(
  rows: Sequence[Graded],
  weight: str,
  answers: Callable[[Sequence[str]], list[str]] | None = None,
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


def to_kept(row: Graded, weight: float = 1.0) -> Kept:
  """Returns what a dataset holds of a sample."""
  completion = row.completion
  return Kept(
    problem_id=row.problem_id,
    sample=row.sample,
    prompt=row.prompt,
    text=completion.text,
    tokens=completion.tokens,
    weight=weight,
  )


def _votes(
  rows: Sequence[Graded],
  answers: Callable[[Sequence[str]], list[str]] | None,
) -> list[float]:
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
