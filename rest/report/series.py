"""The numbers behind the figures and tables of a report."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rest.report.read import Row, Run

_RESAMPLES = 2000
# Success of the base model from which a problem counts as such: the paper's.
_BINS = (('easy', 0.75), ('medium', 0.5), ('hard', 0.25), ('very hard', 0.0))


@dataclass(frozen=True, slots=True)
class Points:
  """Shares by iteration, with the ends of their intervals."""

  iterations: list[int]
  values: list[float]
  lows: list[float]
  highs: list[float]


@dataclass(frozen=True, slots=True)
class Change:
  """Problems that one iteration solves and the one before did not.

  Attributes:
    split: 'test' or 'training'.
    iteration: The later one.
    gained: Newly solved.
    lost: No longer solved.
  """

  split: str
  iteration: int
  gained: int
  lost: int


@dataclass(frozen=True, slots=True)
class Bin:
  """Training problems of like difficulty, and their success by E-step."""

  name: str
  problems: int
  iterations: list[int]
  success: list[float]


def accuracies(run: Run) -> tuple[Points, Points | None, Points | None]:
  """Returns test, validation and training accuracy.

  The E-step of iteration i + 1 draws from the model of iteration i, so that its
  share of right samples is that model's accuracy on training problems.
  """
  test = _scores([(row.iteration, row.test or {}) for row in run.rows])
  measured = [(r.iteration, r.validation) for r in run.rows if r.validation]
  train = Points([], [], [], [])
  for row in run.rows:
    rates = success_rates(row)
    if rates is not None:
      low, high = _bootstrap(rates)
      train.iterations.append(row.iteration - 1)
      train.values.append(float(rates.mean()))
      train.lows.append(low)
      train.highs.append(high)
  return (
    test,
    _scores(measured) if measured else None,
    train if train.iterations else None,
  )


def transfers(run: Run) -> dict[str, Points]:
  """Returns the accuracy on each transfer set, by its label."""
  return {
    label: _scores(
      [
        (row.iteration, row.suites[label])
        for row in run.rows
        if label in row.suites
      ]
    )
    for label in run.rows[0].suites
  }


def majority(run: Run) -> tuple[list[int], list[float]] | None:
  """Returns iterations and majority votes in per cent, if there are any."""
  found = [
    (row.iteration, 100 * row.test['maj_at_k'])
    for row in run.rows
    if row.test and row.test['maj_at_k'] is not None
  ]
  if not found:
    return None
  return [i for i, _ in found], [value for _, value in found]


def success_rates(row: Row) -> np.ndarray | None:
  """Returns the share of right samples of each training problem."""
  counts = (row.e_step or {}).get('correct_by_problem')
  if not counts or row.e_step is None:
    return None
  samples = row.e_step['sampled'] / row.e_step['problems']
  return np.array([counts[name] for name in sorted(counts)]) / samples


def turnover(run: Run) -> list[Change]:
  """Returns what each iteration newly solves and loses, test first."""
  solved = [
    ('test', row.iteration, _solved((row.test or {})['scores']))
    for row in run.rows
  ]
  solved += [
    ('training', row.iteration, _solved(row.e_step['correct_by_problem']))
    for row in run.rows
    if row.e_step and 'correct_by_problem' in row.e_step
  ]
  return [
    Change(split, iteration, len(now - before), len(before - now))
    for (was, _, before), (split, iteration, now) in itertools.pairwise(solved)
    if was == split
  ]


def reasons(run: Run, most: int) -> list[tuple[int, dict[str, float]]]:
  """Returns by iteration the shares of the commonest reasons, in order."""
  drawn = [row for row in run.rows if row.e_step]
  totals: dict[str, float] = {}
  for row in drawn:
    for name, share in _shares(row).items():
      totals[name] = totals.get(name, 0.0) + share
  names = sorted(totals, key=lambda name: -totals[name])[:most]
  return [
    (row.iteration, {name: _shares(row).get(name, 0.0) for name in names})
    for row in drawn
  ]


def difficulty(run: Run) -> list[Bin]:
  """Returns bins by success of the base model that have any problems."""
  found = [(row.iteration, success_rates(row)) for row in run.rows]
  drawn = [(i, rates) for i, rates in found if rates is not None]
  if len(drawn) < 2 or drawn[0][0] != 1:
    return []
  base = drawn[0][1]
  bins, high = [], np.inf
  for name, low in _BINS:
    members = (base >= low) & (base < high)
    high = low
    if members.any():
      success = [float(rates[members].mean()) for _, rates in drawn]
      iterations = [iteration for iteration, _ in drawn]
      bins.append(Bin(name, int(members.sum()), iterations, success))
  return bins


def smoothed(
  steps: Sequence[dict[str, float]],
) -> tuple[list[float], list[float]]:
  """Returns steps and a running mean of their loss."""
  losses = np.array([step['loss'] for step in steps])
  width = max(1, len(losses) // 20)
  sums = np.cumsum(np.concatenate([[0.0], losses]))
  # The first means are over fewer steps.
  starts = np.maximum(0, np.arange(1, len(losses) + 1) - width)
  ends = np.arange(1, len(losses) + 1)
  means = (sums[ends] - sums[starts]) / (ends - starts)
  every = max(1, len(losses) // 400)  # More points than pixels help nobody.
  return [step['step'] for step in steps][::every], means[::every].tolist()


def _scores(rows: Sequence[tuple[int, dict[str, Any]]]) -> Points:
  return Points(
    [iteration for iteration, _ in rows],
    [scores['pass_1'] for _, scores in rows],
    [scores['low'] for _, scores in rows],
    [scores['high'] for _, scores in rows],
  )


def _bootstrap(values: np.ndarray) -> tuple[float, float]:
  """Returns the 95 % interval of a mean over problems; the draws are fixed."""
  rng = np.random.default_rng(0)
  size = len(values)
  means = [
    values[rng.integers(0, size, size)].mean() for _ in range(_RESAMPLES)
  ]
  low, high = np.quantile(means, [0.025, 0.975])
  return float(low), float(high)


def _solved(scores: dict[str, float]) -> set[str]:
  return {name for name, score in scores.items() if score > 0}


def _shares(row: Row) -> dict[str, float]:
  e_step = row.e_step or {}
  return {n: c / e_step['sampled'] for n, c in e_step['reasons'].items()}
