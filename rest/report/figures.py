"""The figures of a report: what they show."""

from collections.abc import Sequence

from matplotlib.axes import Axes

from rest.report import series
from rest.report.drawing import (
  COLORS,
  Figure,
  draw_line,
  draw_points,
  iteration_axis,
  legend_above,
  percent_axis,
  shortened,
)
from rest.report.sample_figures import (
  distinct,
  fates,
  kept_per_problem,
  lengths,
  reasons,
  turnover,
)
from rest.run.scores import Results


def figures(run: Results) -> list[Figure]:
  """Returns the figures of a run that its files allow, in order."""
  makers = (
    accuracy,
    transfer,
    pass_at_k,
    fates,
    turnover,
    kept_per_problem,
    distinct,
    reasons,
    lengths,
    levels,
    difficulty,
    loss,
    phases,
  )
  made = (make(run) for make in makers)
  return [figure for figure in made if figure is not None]


def accuracy(run: Results) -> Figure:
  """Accuracy by iteration: test, validation, and what the E-step saw."""
  test, validation, train = series.accuracies(run)
  number = run.rows[0].test['problems']

  def draw(axes: Axes) -> None:
    draw_points(axes, test, 'test, greedy', COLORS[0], marker='o')
    if validation:
      draw_points(axes, validation, 'validation, greedy', COLORS[2], marker='s')
    if train:
      draw_points(axes, train, 'training, sampled', COLORS[1], marker='^')
    majority = series.majority(run)
    if majority:
      axes.plot(*majority, ':', color=COLORS[3], marker='D', label='test, vote')
    percent_axis(axes, 'problems solved, %')
    iteration_axis(axes, run)
    axes.legend(loc='lower right')

  caption = (
    f'Share of problems solved, by iteration (0 is the base model). Test: '
    f'n = {number:,} problems, one greedy answer each. Bars are 95 % '
    'intervals: Wilson for greedy answers, and for training a bootstrap over '
    'problems of the share of right samples in the E-step that the model drew.'
  )
  return Figure('accuracy', 'Accuracy', caption, draw)


def transfer(run: Results) -> Figure | None:
  """Accuracy on other problem sets by iteration."""
  found = series.transfers(run)
  if not found:
    return None

  def draw(axes: Axes) -> None:
    for index, (label, points) in enumerate(found.items()):
      color = COLORS[index % len(COLORS)]
      draw_points(axes, points, shortened(label), color, marker='o')
    percent_axis(axes, 'problems solved, %')
    iteration_axis(axes, run)
    axes.legend()

  sizes = ', '.join(
    f'{label} {scores["problems"]:,}'
    for label, scores in run.rows[0].suites.items()
  )
  caption = (
    f'Share solved of problem sets that nothing was trained on; n = {sizes}. '
    'Bars are 95 % Wilson intervals.'
  )
  return Figure('transfer', 'Transfer', caption, draw)


def pass_at_k(run: Results) -> Figure | None:
  """pass@k against k, a line an iteration."""
  ks = sorted(map(int, run.rows[0].test['pass_at_k']))
  if not ks:
    return None

  def draw(axes: Axes) -> None:
    for row in run.rows:
      values = [100 * row.test['pass_at_k'][str(k)] for k in ks]
      draw_line(axes, row.iteration, ks, values)
    axes.set_xscale('log', base=2)
    axes.set_xticks(ks, [str(k) for k in ks])
    axes.set_xlabel('samples, k')
    percent_axis(axes, 'pass@k, %')
    axes.legend(loc='lower right')

  samples = run.config('eval.num_samples')
  count = run.config('eval.num_problems') or run.rows[0].test['problems']
  caption = (
    f'Chance that one of k samples is right: unbiased estimates from '
    f'{samples} samples of each of {count} test problems.'
  )
  return Figure('pass_at_k', 'pass@k', caption, draw)


def levels(run: Results) -> Figure | None:
  """Test accuracy by level (or by subject where there are no levels)."""
  field = 'levels' if run.rows[0].test['levels'] else 'subjects'
  names = list(run.rows[0].test[field])[:12]
  if len(names) < 2:
    return None

  def draw(axes: Axes) -> None:
    for row in run.rows:
      values = [100 * row.test[field].get(name, 0) for name in names]
      places = [shortened(name, 14) for name in names]
      draw_line(axes, row.iteration, places, values)
    percent_axis(axes, 'test problems solved, %')
    if field == 'subjects':
      axes.tick_params('x', rotation=30)
    axes.legend()

  number = run.rows[0].test['problems']
  caption = f'Greedy test accuracy by {field[:-1]}; n = {number:,} in all.'
  return Figure('levels', f'Accuracy by {field[:-1]}', caption, draw)


def difficulty(run: Results) -> Figure | None:
  """Success on training problems by how hard they were for the base model."""
  bins = series.difficulty(run)
  if not bins:
    return None

  def draw(axes: Axes) -> None:
    for index, found in enumerate(bins):
      axes.plot(
        [iteration - 1 for iteration in found.iterations],
        [100 * value for value in found.success],
        marker='o',
        color=COLORS[index],
        label=f'{found.name} (n = {found.problems:,})',
      )
    iteration_axis(axes, run)
    percent_axis(axes, 'right samples, %')
    axes.legend()

  caption = (
    'Right samples of training problems, by the share that the base model got '
    'right: easy at least 75 %, medium 50 %, hard 25 %. The base was binned by '
    'the same samples, so that regression to the mean is part of the change.'
  )
  return Figure('difficulty', 'By difficulty', caption, draw)


def loss(run: Results) -> Figure | None:
  """Training loss by step."""
  if not run.steps:
    return None

  def draw(axes: Axes) -> None:
    for iteration, steps in sorted(run.steps.items()):
      draw_line(axes, iteration, *series.smoothed(steps), marker='')
    axes.set(xlabel='step', ylabel='loss, nats a token')
    axes.legend()

  caption = (
    'Loss of completion tokens, a running mean over a twentieth of the steps.'
  )
  return Figure('loss', 'Training loss', caption, draw)


def phases(run: Results) -> Figure | None:
  """Where the time went."""
  names = ('sample', 'train', 'validation', 'test')
  if not any(run.phases.values()):
    return None

  def draw(axes: Axes) -> None:
    left = [0.0] * len(run.rows)
    places = [str(row.iteration) for row in run.rows]
    for name, color in zip(names, COLORS, strict=False):
      widths = [
        run.phases.get((row.iteration, name), {}).get('seconds', 0.0) / 60
        for row in run.rows
      ]
      axes.barh(places, widths, 0.6, left, color=color, label=name)
      left = [a + b for a, b in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.set(xlabel='minutes', ylabel='iteration')
    axes.grid(visible=False, axis='y')
    legend_above(axes)

  caption = 'Wall time by phase, over all starts of the run.'
  return Figure('phases', 'Time', caption, draw)


def comparison(runs: Sequence[Results]) -> Figure:
  """Test accuracy of several runs."""

  def draw(axes: Axes) -> None:
    for index, run in enumerate(runs):
      test, _, _ = series.accuracies(run)
      color = COLORS[index % len(COLORS)]
      draw_points(axes, test, run.name, color, marker='o')
    percent_axis(axes, 'test problems solved, %')
    iteration_axis(axes, max(runs, key=lambda run: len(run.rows)))
    axes.legend(loc='lower right')

  caption = (
    'Greedy test accuracy by iteration, with 95 % Wilson intervals. '
    + '; '.join(
      f'{run.name}: n = {run.rows[0].test["problems"]:,}' for run in runs
    )
    + '.'
  )
  return Figure('comparison', 'Test accuracy', caption, draw)
