"""The numbers behind the figures and tables of a report."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rest import metrics
from rest.run.scores import (
  DIFFICULTIES,
  Results,
  Row,
  difficulty_of,
  success_rates,
)


@dataclass(frozen=True, slots=True)
class Points:
  """Shares by place on an axis, with the ends of their intervals."""

  places: Sequence[float]  # Iterations, where these are the axis.
  values: Sequence[float]
  lows: Sequence[float]
  highs: Sequence[float]


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


def accuracies(run: Results) -> tuple[Points, Points | None, Points | None]:
  """Returns test, validation and training accuracy.

  The E-step of iteration i + 1 draws from the model of iteration i, so that its
  share of right samples is that model's accuracy on training problems.
  """
  test = _scores([(row.iteration, row.test) for row in run.rows])
  measured = [(r.iteration, r.validation) for r in run.rows if r.validation]
  drawn = [(row.iteration, success_rates(row)) for row in run.rows]
  found = [
    (iteration - 1, *metrics.mean_interval(rates[None], resamples=2000))
    for iteration, rates in drawn
    if rates is not None
  ]
  return (
    test,
    _scores(measured) if measured else None,
    Points(*zip(*found, strict=True)) if found else None,
  )


def transfers(run: Results) -> dict[str, Points]:
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


def majority(run: Results) -> tuple[list[int], list[float]] | None:
  """Returns iterations and majority votes in per cent, if there are any."""
  found = [
    (row.iteration, 100 * row.test['maj_at_k'])
    for row in run.rows
    if row.test and row.test['maj_at_k'] is not None
  ]
  if not found:
    return None
  return [i for i, _ in found], [value for _, value in found]


def turnover(run: Results) -> list[Change]:
  """Returns what each iteration newly solves and loses, test first."""
  solved = [
    ('test', row.iteration, _solved(row.test['scores'])) for row in run.rows
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


def reasons(run: Results, most: int) -> list[tuple[int, dict[str, float]]]:
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


def difficulty(run: Results) -> list[Bin]:
  """Returns bins by success of the base model that have any problems."""
  found = [(row.iteration, success_rates(row)) for row in run.rows]
  drawn = [(i, rates) for i, rates in found if rates is not None]
  if len(drawn) < 2 or drawn[0][0] != 1:
    return []
  places = np.array([difficulty_of(success) for success in drawn[0][1]])
  iterations = [iteration for iteration, _ in drawn]
  bins = []
  for place in sorted(set(places), reverse=True):
    members = places == place
    success = [float(rates[members].mean()) for _, rates in drawn]
    name = DIFFICULTIES[place]
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


def _solved(scores: dict[str, float]) -> set[str]:
  return {name for name, score in scores.items() if score > 0}


def _shares(row: Row) -> dict[str, float]:
  e_step = row.e_step
  return {n: c / e_step['sampled'] for n, c in e_step['reasons'].items()}
