"""What the files of a run say it came to, without its samples' texts.

All that read a finished or running run (report, experiments, model cards) read
it here, so that a score, a gain and a choice mean one thing.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from etils import epath

from rest import metrics
from rest.run import digests, store
from rest.run.log import read_journal
from rest.types import Graded
from rest.verify import Pool, VerifyConfig
from rest.verify.answers import Judge, verifier_of, vote

# By the base model's success, hardest first: the paper's bins.
_EDGES = (0.25, 0.5, 0.75)
DIFFICULTIES = ('very hard', 'hard', 'medium', 'easy')
RANGES = ('< 25 %', '25-50 %', '50-75 %', '>= 75 %')

_VOTERS = 4  # Threads.


class NotMeasured(ValueError):
  """A run has no such score."""


@dataclass(frozen=True, slots=True)
class Row:
  """One iteration as its files tell it; what it has not reached is empty."""

  iteration: int
  e_step: dict[str, Any]
  m_step: dict[str, Any]
  validation: dict[str, Any]
  test: dict[str, Any]
  suites: dict[str, dict[str, Any]]  # Transfer sets, by label.
  seconds: dict[str, float]


@dataclass(frozen=True, slots=True)
class Results:
  """A run: its record, its iterations, and its journal.

  Attributes:
    name: The folder's; told apart from those of other runs by `name_apart`.
    workdir: Where its files are.
    record: run.json, or {} where there is none.
    rows: The iterations that have scores, in order.
    steps: By iteration, the steps of its M-step, in order.
    phases: By (iteration, phase), sums over all times it was worked on.
  """

  name: str
  workdir: epath.Path
  record: dict[str, Any]
  rows: list[Row]
  steps: dict[int, list[dict[str, float]]]
  phases: dict[tuple[int, str], dict[str, float]]

  def config(self, field: str) -> Any:
    """Returns a field of the run's config, or None where it is not known."""
    return self.record.get('config', {}).get(field)


def read(workdir: epath.PathLike) -> list[Row]:
  """Returns the iterations of a run that have any scores, in order."""
  rows = []
  while True:
    row = read_row(epath.Path(workdir) / f'iteration_{len(rows)}', len(rows))
    if not row.test:
      return rows
    rows.append(row)


def read_row(folder: epath.Path, iteration: int) -> Row:
  """Reads the files of an iteration, of which none need be there."""
  names = ('e_step', 'm_step', 'validation', 'test')
  known = {n: _read_json(folder / f'{n}.json') or {} for n in names}
  suites = sorted((folder / 'suites').glob('*.json'))
  return Row(
    iteration=iteration,
    suites={
      path.stem: _read_json(path)
      for path in suites
      if path.name != digests.NAME
    },
    seconds=store.read_seconds(folder / 'seconds.json'),
    **known,
  )


def read_run(workdir: epath.PathLike) -> Results:
  """Reads a run.

  Raises:
    ValueError: The folder holds no iteration with scores.
  """
  workdir = epath.Path(workdir)
  rows = read(workdir)
  if not rows:
    raise ValueError(
      f'{workdir} has no iteration_0/test.json: it is not a run, or its base '
      'model is not measured yet.'
    )
  steps: defaultdict[int, dict[int, dict[str, float]]] = defaultdict(dict)
  phases: defaultdict[tuple[int, str], dict[str, float]] = defaultdict(dict)
  for entry in read_journal(workdir):
    if entry['kind'] == 'train' and {'step', 'loss'} <= entry.keys():
      # Steps that a kill undid were taken again: the last counts.
      steps[entry['iteration']][entry['step']] = entry
    elif entry['kind'].startswith('phase/'):
      name = entry['kind'].removeprefix('phase/')
      sums = phases[entry['iteration'], name]
      for key, value in entry.items():
        if key not in ('kind', 'time', 'iteration'):
          sums[key] = sums.get(key, 0) + value
  digests.check(workdir / 'run.json')
  return Results(
    name=workdir.name,
    workdir=workdir,
    record=store.find_record(workdir) or {},
    rows=rows,
    steps={i: [taken[s] for s in sorted(taken)] for i, taken in steps.items()},
    phases=dict(phases),
  )


def chosen(rows: Sequence[Row], record: dict[str, Any]) -> Row:
  """Returns the iteration that validation chooses: the first of the best.

  Where `em.stop_on_validation` is set, the base model may be chosen: the loop
  takes a policy for better than the one before only if it answers more of the
  validation problems, and of the first this may not be so. What is chosen is
  the last that was taken for better. Without that field the number of
  iterations is fixed, as in the paper's experiments, and the question is which
  of the trained models to take; that all of them fell behind the base on
  validation is to be seen in the scores.

  Without validation problems it is the last iteration.

  Args:
    rows: The iterations from 0, the base model.
    record: run.json, or {}.
  """
  may_be_base = record.get('config', {}).get('em.stop_on_validation')
  measured = [row for row in rows if row.validation]
  measured = [r for r in measured if r.iteration or may_be_base] or rows[-1:]
  return max(measured, key=lambda row: row.validation.get('pass_1', 0))


def gain(before: Row, after: Row) -> tuple[float, float, float] | None:
  """Returns the gain in test pass@1, with its paired 95 % interval.

  None where the two have no problem in common.
  """
  first, second = (r.test.get('scores', {}) for r in (before, after))
  common = sorted(first.keys() & second.keys())
  if not common:
    return None
  return metrics.paired_gain(
    [first[name] for name in common], [second[name] for name in common]
  )


def split_gain(before: Row, after: Row) -> tuple[float, float] | None:
  """Returns the parts of a gain: answers now readable, answers now right.

  A problem counts to the first if either answer was none that a verifier could
  read: the model has learnt (or forgotten) how to answer. The second is of
  problems that both have answered: there it has learnt what to answer. None in
  runs of versions that did not note it.

  Example: of 10 problems, 3 were without an answer, of which 2 are now right;
  1 that was wrong is now right: a gain of 0.3, split into 0.2 and 0.1.
  """
  tests = [before.test, after.test]
  if not all('unreadable' in test for test in tests):
    return None
  first, second = (test['scores'] for test in tests)
  common = first.keys() & second.keys()
  if not common:
    return None
  either = common & {name for test in tests for name in test['unreadable']}
  readable, right = (
    sum(second[name] - first[name] for name in names) / len(common)
    for names in (either, common - either)
  )
  return readable, right


def points(shares: Iterable[float]) -> list[str]:
  """Returns gains, or the ends of their intervals, as points with a sign."""
  return [f'{100 * share:+.1f}' for share in shares]


def percent(share: float) -> str:
  """Returns a share as a percentage, to a tenth."""
  return f'{100 * share:.1f} %'


def success_rates(row: Row) -> np.ndarray | None:
  """Returns the share of right samples of each training problem."""
  counts = row.e_step.get('correct_by_problem')
  if not counts:
    return None
  samples = row.e_step['sampled'] / row.e_step['problems']
  return np.array([counts[name] for name in sorted(counts)]) / samples


def difficulty_of(success: float) -> int:
  """Returns a problem's place in `DIFFICULTIES` by the base's success."""
  return sum(success >= edge for edge in _EDGES)


def sampled(run: Results, iteration: int) -> Iterator[list[Graded]]:
  """Reads a model's samples of test problems, a problem at a time."""
  folder = run.workdir / f'iteration_{iteration}' / 'test' / 'sampled'
  return store.Parts(folder).read_done()


def count(groups: Iterable[Sequence[Graded]]) -> dict[str, tuple[int, int]]:
  """Returns by problem how many samples have a verdict, and are correct."""
  return {
    rows[0].problem_id: (
      sum(row.verdict.reward is not None for row in rows),
      sum(row.verdict.reward == 1.0 for row in rows),
    )
    for rows in groups
  }


def pass_at(counts: dict[str, tuple[int, int]], k: int) -> dict[str, float]:
  """Returns pass@k of each problem with at least k verdicts; see `count`."""
  return {
    name: metrics.pass_at_k(judged, correct, k)
    for name, (judged, correct) in counts.items()
    if judged >= k
  }


def majority(
  groups: Iterable[Sequence[Graded]], judge: Judge
) -> dict[str, float]:
  """Returns maj@k of each problem that has a verdict, k being all samples.

  Votes mostly wait for the judge, so some are cast at once, and while further
  groups are being drawn; where that raises, what was not begun is dropped.
  """
  voters = ThreadPoolExecutor(_VOTERS, 'vote')
  try:
    votes = {r[0].problem_id: voters.submit(vote, r, judge) for r in groups}
    shares = {name: cast.result() for name, cast in votes.items()}
  finally:
    voters.shutdown(cancel_futures=True)
  return {name: share for name, share in shares.items() if share is not None}


def by_problem(run: Results, iteration: int, score: str) -> dict[str, float]:
  """Returns a model's score on each problem that has a verdict.

  Args:
    run: Of the model.
    iteration: Of the model; it must have scores.
    score: 'test', 'validation', 'suites/...', 'train' (right samples of the
      E-step that it drew), 'maj' or 'pass@4'.

  Raises:
    NotMeasured: The run has none.
  """
  row = run.rows[iteration]
  if score == 'train':
    drawn = store.Parts(run.workdir / f'iteration_{iteration + 1}' / 'parts')
    return pass_at(count(drawn.read_done()), 1)
  if score.startswith('pass@'):
    k = int(score.removeprefix('pass@'))
    return pass_at(count(sampled(run, iteration)), k)
  if score == 'maj':
    if not (groups := list(sampled(run, iteration))):
      return {}
    names = tuple({verifier_of(rows) for rows in groups})
    with Pool(VerifyConfig(), names) as pool:
      return majority(groups, pool)
  known = {'test': row.test, 'validation': row.validation} | {
    f'suites/{label}': suite for label, suite in row.suites.items()
  }
  if not (scores := known.get(score)):
    raise NotMeasured(
      f'{run.workdir} has no iteration_{iteration}/{score}.json: it was not '
      'measured.'
    )
  return scores['scores']


def _read_json(path: epath.Path) -> Any:
  """Returns what is in a file, or None; raises Damaged."""
  digests.check(path)
  return store.read_json(path)
