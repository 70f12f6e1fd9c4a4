"""The outcome of an experiment: its arms' scores with intervals, and a figure.

Every score is kept by problem and by seed, so that two arms are compared on the
same problems and the interval holds the luck of both. Which iteration an arm is
judged by is chosen on validation; test only reports.
"""

import pathlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from rest import metrics
from rest.report import drawing
from rest.report.series import Points
from rest.run import scores, tables
from rest.run.scores import Results

AXES = ('iteration', 'arm', 'k', 'difficulty')


@dataclass(frozen=True, slots=True)
class Point:
  """One model of an arm, measured.

  Attributes:
    series: What it belongs to: a line of the figure, and the table's group.
    x: Its place on the axis.
    scores: By seed, then by problem id.
    before: The base model's, likewise; None where it is the base model's own.
    notes: Text for the table.
  """

  series: str
  x: str
  scores: list[dict[str, float]]
  before: list[dict[str, float]] | None = None
  notes: str = ''


@dataclass(frozen=True, slots=True)
class Experiment:
  """What was run, and how it is shown.

  Attributes:
    title: Of the figure.
    arms: Working directories by seed, of each arm.
    axis: What the figure's axis is: one of AXES.
    scores: A panel each: 'test', 'validation', 'train', 'suites/...', 'pass@4',
      'maj'.
  """

  title: str
  arms: dict[str, list[pathlib.Path]]
  axis: str
  scores: tuple[str, ...]


def read(experiment: Experiment) -> dict[str, list[Point]]:
  """Returns the points of each panel; reads every run once."""
  arms = {
    name: [scores.read_run(workdir) for workdir in workdirs]
    for name, workdirs in experiment.arms.items()
  }
  make = _POINTS[experiment.axis]
  return {
    score: [p for name, runs in arms.items() for p in make(name, runs, score)]
    for score in experiment.scores
  }


def table(experiment: Experiment, panels: dict[str, list[Point]]) -> str:
  """Returns all points with intervals, and their gains, as text."""
  rows = [
    _row(experiment.axis, score, point, points)
    for score, points in panels.items()
    for point in points
  ]
  return f'{caption(experiment, panels)}\n\n{tables.as_text(rows)}'


def caption(experiment: Experiment, panels: dict[str, list[Point]]) -> str:
  """Returns what the figure shows, with n, seeds and the interval's kind."""
  sizes = {
    score: len(set().union(*(_shared(point.scores) for point in points)))
    for score, points in panels.items()
  }
  seeds = len(next(iter(experiment.arms.values())))
  count = ', '.join(f'{n} problems ({score})' for score, n in sizes.items())
  chosen = (
    ''
    if experiment.axis == 'iteration'
    else ' Of each arm, the iteration that is best on validation.'
  )
  return (
    f'{experiment.title}. n = {count}, {seeds} seed{"s"[: seeds > 1]}; 95 % '
    f'intervals from a bootstrap over seeds and problems.{chosen}'
  )


def picture(
  experiment: Experiment, panels: dict[str, list[Point]], kind: str
) -> bytes:
  """Returns the figure as 'png' or 'svg'."""

  def figure(score: str, points: list[Point]) -> drawing.Figure:
    def draw(axes: Axes) -> None:
      _draw(axes, score, points, experiment.axis)

    return drawing.Figure(score, score, '', draw)

  return drawing.save(
    [figure(score, points) for score, points in panels.items()],
    kind,
    size=(2 + 4.5 * len(panels), 4.6),
    dpi=120,
    caption=caption(experiment, panels),
  )


def _by_iteration(
  name: str, runs: Sequence[Results], score: str
) -> list[Point]:
  points: list[Point] = []
  for iteration in range(min(len(run.rows) for run in runs)):
    try:
      found = [scores.by_problem(run, iteration, score) for run in runs]
    except scores.NotMeasured:
      break
    if not all(found):
      break
    before = points[0].scores if points else None
    points.append(Point(name, str(iteration), found, before))
  return points


def _by_arm(name: str, runs: Sequence[Results], score: str) -> list[Point]:
  chosen = _chosen(runs)
  examples = [run.rows[i].m_step['examples'] for run, i in chosen]
  before, after = (
    [scores.by_problem(run, i, score) for run, i in models]
    for models in (_bases(runs), chosen)
  )
  notes = f'iteration {_list(i for _, i in chosen)}, {_list(examples)} examples'
  return [Point(score, name, after, before, notes)]


def _by_k(name: str, runs: Sequence[Results], score: str) -> list[Point]:
  """`score` is 'test'; the k are those of the run."""
  before, after = (
    [scores.count(scores.sampled(run, i)) for run, i in models]
    for models in (_bases(runs), _chosen(runs))
  )
  base, tuned = [], []
  for k in runs[0].config('eval.pass_k'):
    old, new = (
      [scores.pass_at(counts, k) for counts in seeds]
      for seeds in (before, after)
    )
    base.append(Point(f'{name}: base', str(k), old))
    tuned.append(Point(name, str(k), new, old))
  return base + tuned


def _by_difficulty(
  name: str, runs: Sequence[Results], score: str
) -> list[Point]:
  """Bins by one half of the base's samples, measures it on the other.

  All seeds have the same base, so their samples together say how hard a problem
  is, and its bin is that of all seeds.
  """
  halves, after = (
    [run.rows[i].test['halves'] for run, i in models]
    for models in (_bases(runs), _chosen(runs))
  )
  bins = {
    id: scores.difficulty_of(sum(half[id][0] for half in halves) / len(halves))
    for id in sorted(_shared(halves))
  }
  base, tuned = [], []
  for number, label in enumerate(scores.RANGES):
    ids = [id for id in bins if bins[id] == number]
    if not ids:
      continue
    x = f'{label} ({len(ids)})'
    before = [{id: half[id][1] for id in ids} for half in halves]
    now = [{id: half[id][1] for id in ids} for half in after]
    base.append(Point(f'{name}: base', x, before))
    tuned.append(Point(name, x, now, before))
  return base + tuned


def _bases(runs: Sequence[Results]) -> list[tuple[Results, int]]:
  return [(run, 0) for run in runs]


def _chosen(runs: Sequence[Results]) -> list[tuple[Results, int]]:
  """Returns each run with the iteration that its validation chooses."""
  return [(r, scores.chosen(r.rows, r.record).iteration) for r in runs]


_POINTS = {
  'iteration': _by_iteration,
  'arm': _by_arm,
  'k': _by_k,
  'difficulty': _by_difficulty,
}


def _list(values: Iterable[int]) -> str:
  return '/'.join(map(str, values))


def _matrix(*groups: list[dict[str, float]]) -> list[np.ndarray]:
  """Returns scores by seed and problem, on the problems that all share."""
  ids = sorted(
    _shared([by_problem for group in groups for by_problem in group])
  )
  return [
    np.array([[by_problem[id] for id in ids] for by_problem in group], float)
    for group in groups
  ]


def _shared(seeds: Sequence[dict[str, Any]]) -> set[str]:
  """Returns the problems that all have."""
  return set.intersection(*map(set, seeds))


def _row(
  axis: str, score: str, point: Point, points: list[Point]
) -> dict[str, str]:
  cells = (
    {'arm': point.x, 'data': point.notes}
    if axis == 'arm'
    else {'arm': point.series, axis: point.x}
  )
  return {
    'score': score,
    **cells,
    'mean [95 %]': _mean(point),
    'over the base': _gain(point.before, point.scores),
    'over the first arm': _gain(_first(axis, point, points), point.scores),
  }


def _first(
  axis: str, point: Point, points: list[Point]
) -> list[dict[str, float]] | None:
  """Returns what the first arm scores at the same place, or None."""
  if axis == 'arm':
    return None if point is points[0] else points[0].scores
  for other in points:
    if other.series == points[0].series and other.x == point.x:
      return None if other is point else other.scores
  return None


def _mean(point: Point) -> str:
  mean, low, high = (100 * share for share in _interval(point))
  return f'{mean:.1f} [{low:.1f}, {high:.1f}]'


def _interval(point: Point) -> tuple[float, float, float]:
  """Returns a point's mean, with its 95 % interval."""
  (scores_SP,) = _matrix(point.scores)
  return metrics.mean_interval(scores_SP)


def _gain(
  before: list[dict[str, float]] | None, after: list[dict[str, float]]
) -> str:
  if before is None:
    return ''
  old_SP, new_SP = _matrix(before, after)
  gain, low, high = scores.points(metrics.mean_interval(new_SP - old_SP))
  return f'{gain} [{low}, {high}]'


def _draw(axes: Axes, score: str, points: list[Point], axis: str) -> None:
  places = list(dict.fromkeys(point.x for point in points))
  series = list(dict.fromkeys(point.series for point in points))
  for number, name in enumerate(series):
    mine = [point for point in points if point.series == name]
    shift = 0.06 * (number - (len(series) - 1) / 2)
    means, lows, highs = zip(*map(_interval, mine), strict=True)
    drawing.draw_points(
      axes,
      Points([places.index(p.x) + shift for p in mine], means, lows, highs),
      name,
      drawing.COLORS[number % len(drawing.COLORS)],
      marker='o',
      line=axis != 'arm',
    )
  axes.set_xticks(range(len(places)), places)
  axes.set(ylabel=f'{score}, %', xlabel='' if axis == 'arm' else axis)
  if axis == 'arm':
    axes.tick_params(axis='x', labelrotation=30)
    axes.margins(x=0.1)
  elif len(series) > 1:
    axes.legend()
