"""The outcome of an experiment: its arms' scores with intervals, and a figure.

Every score is kept by problem and by seed, so that two arms are compared on the
same problems and the interval holds the luck of both. Which iteration an arm is
judged by is chosen on validation; test only reports.
"""

import io
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rest import metrics
from rest.run import store
from rest.verify import Pool, VerifyConfig
from rest.verify.answers import verifier_of, vote

AXES = ('iteration', 'arm', 'k', 'difficulty')
_EDGES = (0.25, 0.5, 0.75)  # Of difficulty bins, by the base's success.
_BINS = ('< 25 %', '25-50 %', '50-75 %', '>= 75 %')


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
  """Returns the points of each panel."""
  return {
    score: [
      point
      for name, workdirs in experiment.arms.items()
      for point in _POINTS[experiment.axis](name, workdirs, score)
    ]
    for score in experiment.scores
  }


def table(experiment: Experiment) -> str:
  """Returns all points with intervals, and their gains, as text."""
  rows = []
  for score, points in read(experiment).items():
    for index, point in enumerate(points):
      rows.append(_row(experiment, score, point, points, index))
  return f'{caption(experiment)}\n\n{metrics.format_table(rows)}'


def caption(experiment: Experiment) -> str:
  """Returns what the figure shows, with n, seeds and the interval's kind."""
  sizes = {
    score: len(set().union(*(_shared(point.scores) for point in points)))
    for score, points in read(experiment).items()
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


def picture(experiment: Experiment, kind: str) -> bytes:
  """Returns the figure as 'png' or 'svg'."""
  import matplotlib
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  panels = read(experiment)
  size = (2 + 4.5 * len(panels), 4.6)
  figure = Figure(figsize=size, layout='constrained')
  FigureCanvasAgg(figure)
  for axes, (score, points) in zip(
    figure.subplots(1, len(panels), squeeze=False)[0],
    panels.items(),
    strict=True,
  ):
    _draw(axes, score, points, experiment.axis)
  text = figure.supxlabel(caption(experiment), fontsize='x-small')
  text.set_wrap(True)
  buffer = io.BytesIO()
  with matplotlib.rc_context({'svg.hashsalt': 'rest'}):  # The same bytes.
    unset = {'Date': None} if kind == 'svg' else {}
    figure.savefig(buffer, format=kind, dpi=120, metadata=unset)
  return buffer.getvalue()


def best(workdir: pathlib.Path) -> int:
  """Returns the iteration that is best on validation, the first of equals.

  The last one where there are no validation problems.
  """
  scores = {}
  iteration = 1
  while (workdir / f'iteration_{iteration}' / 'test.json').exists():
    path = workdir / f'iteration_{iteration}' / 'validation.json'
    known = store.read_json(path)
    scores[iteration] = known['pass_1'] if known else float(iteration)
    iteration += 1
  return max(scores, key=scores.__getitem__)


def by_problem(
  workdir: pathlib.Path, iteration: int, score: str
) -> dict[str, float]:
  """Returns a model's score on each problem that has a verdict.

  Raises:
    ValueError: The run did not measure it.
  """
  folder = workdir / f'iteration_{iteration}'
  if score == 'train':
    parts = store.Parts(workdir / f'iteration_{iteration + 1}/parts')
    return _pass_at(parts, 1)
  if score == 'maj':
    return _majority(store.Parts(folder / 'test/sampled'))
  if score.startswith('pass@'):
    k = int(score.removeprefix('pass@'))
    return _pass_at(store.Parts(folder / 'test/sampled'), k)
  known = store.read_json(folder / f'{score}.json')
  if known is None:
    raise ValueError(f'{folder} has no {score}.json: it was not measured.')
  return known['scores']


def _pass_at(parts: store.Parts, k: int) -> dict[str, float]:
  scores = {}
  for index in sorted(parts.done()):
    rows = parts.read(index)
    judged = [row for row in rows if row.verdict.reward is not None]
    if len(judged) >= k:
      correct = sum(row.verdict.reward == 1.0 for row in judged)
      scores[rows[0].problem_id] = metrics.pass_at_k(len(judged), correct, k)
  return scores


def _majority(parts: store.Parts) -> dict[str, float]:
  groups = [parts.read(index) for index in sorted(parts.done())]
  if not groups:
    return {}
  with Pool(VerifyConfig(), (verifier_of(groups[0]),)) as pool:
    shares = {rows[0].problem_id: vote(rows, pool) for rows in groups}
  return {name: share for name, share in shares.items() if share is not None}


def _by_iteration(
  name: str, workdirs: Sequence[pathlib.Path], score: str
) -> list[Point]:
  points, iteration = [], 0
  before = None
  while all(_has(workdir, iteration, score) for workdir in workdirs):
    scores = [by_problem(workdir, iteration, score) for workdir in workdirs]
    points.append(Point(name, str(iteration), scores, before))
    before = before or scores
    iteration += 1
  return points


def _has(workdir: pathlib.Path, iteration: int, score: str) -> bool:
  try:
    return bool(by_problem(workdir, iteration, score))
  except ValueError:
    return False


def _by_arm(
  name: str, workdirs: Sequence[pathlib.Path], score: str
) -> list[Point]:
  chosen = [best(workdir) for workdir in workdirs]
  examples = [
    store.read_json(workdir / f'iteration_{index}/m_step.json')['examples']
    for workdir, index in zip(workdirs, chosen, strict=True)
  ]
  return [
    Point(
      score,
      name,
      _chosen(workdirs, chosen, score),
      [by_problem(workdir, 0, score) for workdir in workdirs],
      f'iteration {_list(chosen)}, {_list(examples)} examples',
    )
  ]


def _by_k(
  name: str, workdirs: Sequence[pathlib.Path], score: str
) -> list[Point]:
  """`score` is 'test'; the k are those of the run."""
  config = store.read_json(workdirs[0] / 'run.json')['config']
  base, tuned = [], []
  chosen = [best(workdir) for workdir in workdirs]
  for k in config['eval.pass_k']:
    what = f'pass@{k}'
    before = [by_problem(workdir, 0, what) for workdir in workdirs]
    base.append(Point(f'{name}: base', str(k), before))
    after = _chosen(workdirs, chosen, what)
    tuned.append(Point(name, str(k), after, before))
  return base + tuned


def _by_difficulty(
  name: str, workdirs: Sequence[pathlib.Path], score: str
) -> list[Point]:
  """Bins by one half of the base's samples, measures it on the other.

  All seeds have the same base, so their samples together say how hard a problem
  is, and its bin is that of all seeds.
  """
  base, tuned = [], []
  chosen = [best(workdir) for workdir in workdirs]
  halves = [
    store.read_json(workdir / 'iteration_0/test.json')['halves']
    for workdir in workdirs
  ]
  after = [
    store.read_json(workdir / f'iteration_{index}/test.json')['halves']
    for workdir, index in zip(workdirs, chosen, strict=True)
  ]
  shared = set.intersection(*(set(half) for half in halves))
  bins = {
    id: bin_of(sum(half[id][0] for half in halves) / len(halves))
    for id in sorted(shared)
  }
  for number, label in enumerate(_BINS):
    ids = [id for id in bins if bins[id] == number]
    if not ids:
      continue
    x = f'{label} ({len(ids)})'
    before = [{id: half[id][1] for id in ids} for half in halves]
    now = [{id: half[id][1] for id in ids} for half in after]
    base.append(Point(f'{name}: base', x, before))
    tuned.append(Point(name, x, now, before))
  return base + tuned


def bin_of(success: float) -> int:
  """Returns the difficulty bin of a problem, 0 the hardest."""
  return sum(success >= edge for edge in _EDGES)


_POINTS = {
  'iteration': _by_iteration,
  'arm': _by_arm,
  'k': _by_k,
  'difficulty': _by_difficulty,
}


def _chosen(
  workdirs: Sequence[pathlib.Path], chosen: Sequence[int], score: str
) -> list[dict[str, float]]:
  return [
    by_problem(workdir, index, score)
    for workdir, index in zip(workdirs, chosen, strict=True)
  ]


def _list(values: Sequence[int]) -> str:
  return '/'.join(map(str, values))


def _matrix(*scores: list[dict[str, float]]) -> list[np.ndarray]:
  """Returns scores by seed and problem, on the problems that all share."""
  ids = sorted(_shared([s for group in scores for s in group]))
  return [
    np.array([[s[id] for id in ids] for s in group], np.float64)
    for group in scores
  ]


def _shared(scores: Sequence[dict[str, float]]) -> set[str]:
  """Returns the problems that all have."""
  return set.intersection(*map(set, scores))


def _row(
  experiment: Experiment,
  score: str,
  point: Point,
  points: list[Point],
  index: int,
) -> dict[str, str]:
  first = _first(experiment.axis, point, points)
  return {
    'score': score,
    'arm': point.x if experiment.axis == 'arm' else point.series,
    experiment.axis if experiment.axis != 'arm' else 'data': (
      point.notes if experiment.axis == 'arm' else point.x
    ),
    'mean [95 %]': _mean(point),
    'over the base': _gain(point.before, point.scores),
    'over the first arm': _gain(first, point.scores),
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
  (scores_SP,) = _matrix(point.scores)
  mean, low, high = metrics.mean_interval(scores_SP)
  return f'{100 * mean:.1f} [{100 * low:.1f}, {100 * high:.1f}]'


def _gain(
  before: list[dict[str, float]] | None, after: list[dict[str, float]]
) -> str:
  if before is None:
    return ''
  old_SP, new_SP = _matrix(before, after)
  gain, low, high = metrics.mean_interval(new_SP - old_SP)
  return f'{100 * gain:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]'


def _draw(axes: Any, score: str, points: list[Point], axis: str) -> None:
  places = list(dict.fromkeys(point.x for point in points))
  series = list(dict.fromkeys(point.series for point in points))
  for number, name in enumerate(series):
    mine = [point for point in points if point.series == name]
    summary = [metrics.mean_interval(_matrix(p.scores)[0]) for p in mine]
    mean, low, high = 100 * np.array(summary).T
    shift = 0.06 * (number - (len(series) - 1) / 2)
    axes.errorbar(
      [places.index(point.x) + shift for point in mine],
      mean,
      [mean - low, high - mean],
      fmt='o' if axis == 'arm' else 'o-',
      capsize=4,
      label=name,
    )
  axes.set_xticks(range(len(places)), places)
  axes.set(ylabel=f'{score}, %', xlabel='' if axis == 'arm' else axis)
  if axis == 'arm':
    axes.tick_params(axis='x', labelrotation=30)
    axes.margins(x=0.1)
  elif len(series) > 1:
    axes.legend(fontsize='small')
  axes.grid(alpha=0.3, axis='y')
