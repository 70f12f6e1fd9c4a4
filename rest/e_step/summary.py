"""What came of an E-step, in numbers and in words.

All of it depends on samples and verdicts alone: it is the same bytes whatever
happened to the run.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rest.types import Graded

KEPT = 'kept'
OVER_CAP = 'over the cap'
OUTVOTED = 'outvoted'  # Right, but another answer was the commonest.
DUPLICATE = 'duplicate'
UNFINISHED = 'cut off'
INCORRECT = 'incorrect'
UNKNOWN = 'unknown'

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)  # Of `EStepSummary.lengths`.


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


@dataclass(frozen=True, slots=True)
class EStepSummary:
  """What came of an E-step.

  Attributes:
    problems: Problems asked.
    sampled: Samples drawn.
    correct: Samples judged correct.
    unknown: Samples without a verdict, never trained on.
    ended: Samples by what ended them: see `Completion.ended`; those that never
      end their thoughts are among the 'limit'.
    unreadable: Samples in which the verifier found no answer, or no program.
    kept: Solutions in the dataset.
    hinted: Of them, those whose question held the answer.
    solved: Problems with a correct sample in the dataset, drawn without a hint.
    fates: What became of the samples: see `Choice.fate`.
    kept_per_problem: How many problems have 0, 1, 2, ... kept solutions.
    distinct_per_problem: How many have 0, 1, 2, ... distinct correct texts.
    correct_by_problem: Correct samples, by problem id.
    reasons: Verdicts by reason.
    mean_tokens: Mean length of a sample.
    lengths: The `QUANTILES` of the length in tokens, of 'correct' samples and
      of 'other' ones.
  """

  problems: int
  sampled: int
  correct: int
  unknown: int
  ended: dict[str, int]
  unreadable: int
  kept: int
  hinted: int
  solved: int
  fates: dict[str, int]
  kept_per_problem: dict[str, int]
  distinct_per_problem: dict[str, int]
  correct_by_problem: dict[str, int]
  reasons: dict[str, int]
  mean_tokens: float
  lengths: dict[str, list[float]]


class Tally:
  """Counts samples, a problem at a time."""

  def __init__(self):
    self._hinted = self._solved = self._unreadable = 0
    self._ended = {'token': 0, 'stop': 0, 'limit': 0}
    self._fates: Counter[str] = Counter()
    self._kept: Counter[int] = Counter()
    self._distinct: Counter[int] = Counter()
    self._correct: dict[str, int] = {}
    self._reasons: Counter[str] = Counter()
    # How many samples have which length.
    self._lengths: defaultdict[str, Counter[int]] = defaultdict(Counter)

  def add(self, choices: Sequence[Choice], hinted: int = 0) -> None:
    """Adds a problem.

    Args:
      choices: What became of all its samples that were drawn without a hint.
      hinted: Samples kept that were drawn with one.
    """
    rows = [choice.row for choice in choices]
    correct = [row for row in rows if row.verdict.reward == 1.0]
    self._hinted += hinted
    self._solved += any(
      choice.kept and choice.row.verdict.reward == 1.0 for choice in choices
    )
    self._fates.update(choice.fate for choice in choices)
    self._kept[sum(choice.kept for choice in choices) + hinted] += 1
    texts = {row.completion.text.strip() for row in correct}
    self._distinct[len(texts)] += 1
    self._correct[rows[0].problem_id] = len(correct)
    for row in rows:
      self._unreadable += not row.verdict.readable
      self._ended[row.completion.ended if row.finished else 'limit'] += 1
      self._reasons[row.verdict.reason] += 1
      name = 'correct' if row.verdict.reward == 1.0 else 'other'
      self._lengths[name][len(row.completion.tokens)] += 1

  def summary(self) -> EStepSummary:
    """Returns the counts so far."""
    problems, sampled = len(self._correct), sum(self._fates.values())
    tokens = sum(
      length * count
      for counts in self._lengths.values()
      for length, count in counts.items()
    )
    return EStepSummary(
      problems=problems,
      sampled=sampled,
      correct=sum(self._correct.values()),
      unknown=self._fates[UNKNOWN],
      ended=self._ended,
      unreadable=self._unreadable,
      kept=self._fates[KEPT] + self._hinted,
      hinted=self._hinted,
      solved=self._solved,
      fates=dict(self._fates),
      kept_per_problem=_by_size(self._kept),
      distinct_per_problem=_by_size(self._distinct),
      correct_by_problem=self._correct,
      reasons=dict(self._reasons.most_common()),
      mean_tokens=round(tokens / max(1, sampled), 2),
      lengths={
        name: _quantiles(self._lengths[name]) for name in sorted(self._lengths)
      },
    )


def describe(summary: EStepSummary, cap: int) -> str:
  """Returns in words what was kept, and why the rest was not."""
  words = {
    INCORRECT: 'wrong',
    UNFINISHED: 'right but cut off by the length limit',
    DUPLICATE: 'right but the same text as another',
    OVER_CAP: f'right but over the cap of {cap} a problem',
    OUTVOTED: 'right but not the commonest answer',
    UNKNOWN: 'without a verdict',
  }
  dropped = ', '.join(
    f'{summary.fates[fate]:,} {name}'
    for fate, name in words.items()
    if summary.fates.get(fate)
  )
  ended, sampled = summary.ended, max(1, summary.sampled)
  return (
    f'kept {summary.kept:,} of {summary.sampled:,} samples (dropped: '
    f'{dropped or "none"}); {summary.solved:,} of {summary.problems:,} '
    'problems have a solution; '
    f'ended by an end token {ended["token"] / sampled:.1%}, by a stop string '
    f'{ended["stop"] / sampled:.1%}, cut off at the length limit '
    f'{ended["limit"] / sampled:.1%}; without a readable answer '
    f'{summary.unreadable / sampled:.1%}'
  )


def _quantiles(counts: Counter[int]) -> list[float]:
  """Returns the `QUANTILES` of values that are counted, to a tenth.

  Between two values, NumPy says where: so all of them would give the same.
  """
  values = np.array(sorted(counts))
  ends = np.cumsum([counts[value] for value in values])
  found = []
  for quantile in QUANTILES:
    rank = quantile * (ends[-1] - 1)
    below, above = (
      values[np.searchsorted(ends, int(whole), side='right')]
      for whole in (np.floor(rank), np.ceil(rank))
    )
    found.append(np.quantile([below, above], rank % 1))
  return np.round(found, 1).tolist()


def _by_size(counts: Counter[int]) -> dict[str, int]:
  return {str(size): counts[size] for size in sorted(counts)}
