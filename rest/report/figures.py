"""The figures of a report: what they show."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from rest.report import series
from rest.report.drawing import (
  COLORS,
  FATE_COLORS,
  GREY,
  Figure,
  color_of,
  draw_points,
  iteration_axis,
  legend_above,
  name_of,
  percent_axis,
  shortened,
)
from rest.report.read import Run
from rest.tally import QUANTILES


def figures(run: Run) -> list[Figure]:
  """Returns the figures of a run that its files allow, in order."""
  makers = (
    accuracy,
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


def accuracy(run: Run) -> Figure:
  """Accuracy by iteration: test, validation, and what the E-step saw."""
  test, validation, train = series.accuracies(run)
  number = (run.rows[0].test or {})['problems']

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


def pass_at_k(run: Run) -> Figure | None:
  """pass@k against k, a line an iteration."""
  if not (run.rows[0].test or {})['pass_at_k']:
    return None

  def draw(axes: Axes) -> None:
    for row in run.rows:
      values = sorted(
        (int(k), 100 * v) for k, v in (row.test or {})['pass_at_k'].items()
      )
      axes.plot(
        [k for k, _ in values],
        [v for _, v in values],
        marker='o',
        color=color_of(row.iteration),
        label=name_of(row.iteration),
      )
    axes.set_xscale('log', base=2)
    ks = sorted(map(int, (run.rows[0].test or {})['pass_at_k']))
    axes.set_xticks(ks, [str(k) for k in ks])
    axes.set_xlabel('samples, k')
    percent_axis(axes, 'pass@k, %')
    axes.legend(loc='lower right')

  samples = run.config('eval.num_samples')
  count = (
    run.config('eval.num_problems') or (run.rows[0].test or {})['problems']
  )
  caption = (
    f'Chance that one of k samples is right: unbiased estimates from '
    f'{samples} samples of each of {count} test problems.'
  )
  return Figure('pass_at_k', 'pass@k', caption, draw)


def fates(run: Run) -> Figure | None:
  """What became of the samples of each E-step."""
  drawn = [r for r in run.rows if r.e_step and 'fates' in r.e_step]
  if not drawn:
    return None

  def draw(axes: Axes) -> None:
    below = [0.0] * len(drawn)
    places = [str(row.iteration) for row in drawn]
    for name, color in FATE_COLORS:
      heights = [
        100 * e['fates'].get(name, 0) / e['sampled']
        for e in (row.e_step or {} for row in drawn)
      ]
      if any(heights):
        axes.bar(places, heights, 0.6, below, color=color, label=name)
        below = [a + b for a, b in zip(below, heights, strict=True)]
    axes.set_xlabel('iteration')
    axes.grid(visible=False, axis='x')
    percent_axis(axes, 'samples, %')
    legend_above(axes)

  sampled = (drawn[0].e_step or {})['sampled']
  caption = (
    f'What became of the {sampled:,} samples of each E-step. Kept samples are '
    'what the model is fine-tuned on.'
  )
  return Figure('fates', 'From samples to training data', caption, draw)


def turnover(run: Run) -> Figure | None:
  """Problems newly solved, and lost, from one iteration to the next."""
  changes = series.turnover(run)
  if not changes:
    return None

  def draw(axes: Axes) -> None:
    for offset, (name, color) in enumerate(
      (('test', COLORS[0]), ('training', COLORS[1]))
    ):
      found = [c for c in changes if c.split == name]
      places = [c.iteration + 0.32 * (offset - 0.5) for c in found]
      axes.bar(places, [c.gained for c in found], 0.3, color=color, label=name)
      axes.bar(places, [-c.lost for c in found], 0.3, color=color, alpha=0.5)
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.set(xlabel='iteration', ylabel='problems: lost < 0 < newly solved')
    axes.set_xticks(sorted({c.iteration for c in changes}))
    axes.grid(visible=False, axis='x')
    legend_above(axes)

  caption = (
    'Problems that the iteration solves and the one before it did not (above), '
    'and the reverse (below). Test: by the greedy answer. Training: by any '
    'sample of the E-step.'
  )
  return Figure('turnover', 'Newly solved and lost', caption, draw)


def kept_per_problem(run: Run) -> Figure | None:
  """How many solutions of a problem are kept."""
  return _histogram(
    run,
    'kept_per_problem',
    'Kept solutions of a problem',
    'kept solutions',
    'Problems by how many of their solutions are in the training data.',
  )


def distinct(run: Run) -> Figure | None:
  """How many different right solutions a problem has."""
  return _histogram(
    run,
    'distinct_per_problem',
    'Diversity',
    'different right solutions',
    'Problems by how many different texts are among their right samples.',
  )


def _histogram(
  run: Run, field: str, title: str, label: str, caption: str
) -> Figure | None:
  drawn = [row for row in run.rows if row.e_step and field in row.e_step]
  if not drawn:
    return None

  def draw(axes: Axes) -> None:
    for row in drawn:
      e_step = row.e_step or {}
      sizes = {int(size): count for size, count in e_step[field].items()}
      edges = range(max(sizes) + 1)
      shares = [100 * sizes.get(n, 0) / e_step['problems'] for n in edges]
      color = color_of(row.iteration)
      axes.plot(
        edges, shares, marker='.', color=color, label=name_of(row.iteration)
      )
    axes.set(xlabel=label, ylabel='problems, %')
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()

  problems = (drawn[0].e_step or {})['problems']
  return Figure(field, title, f'{caption} n = {problems:,}.', draw)


def reasons(run: Run) -> Figure | None:
  """Why samples were not right, the commonest first."""
  found = series.reasons(run, most=8)
  if not found:
    return None
  names = list(dict.fromkeys(name for _, shares in found for name in shares))

  def draw(axes: Axes) -> None:
    height = 0.8 / len(found)
    for index, (iteration, shares) in enumerate(found):
      places = [
        n + height * (index - (len(found) - 1) / 2) for n in range(len(names))
      ]
      values = [100 * shares.get(name, 0) for name in names]
      axes.barh(
        places,
        values,
        height,
        color=color_of(iteration),
        label=name_of(iteration),
      )
    axes.set_yticks(range(len(names)), [shortened(name) for name in names])
    axes.invert_yaxis()
    axes.set_xlabel('samples, %')
    axes.grid(visible=False, axis='y')
    axes.legend()

  caption = "The verifier's reasons, as shares of all samples of the E-step."
  return Figure('reasons', 'Verdicts by reason', caption, draw)


def lengths(run: Run) -> Figure | None:
  """How long samples are."""
  drawn = [r for r in run.rows if r.e_step and r.e_step.get('lengths')]
  if not drawn:
    return None

  def draw(axes: Axes) -> None:
    for offset, name, color in (
      (-0.1, 'correct', COLORS[2]),
      (0.1, 'other', COLORS[1]),
    ):
      label: str | None = name
      for row in drawn:
        if name not in (row.e_step or {})['lengths']:
          continue
        ends = (row.e_step or {})['lengths'][name]
        x = row.iteration + offset
        axes.plot([x, x], [ends[0], ends[-1]], color=color, linewidth=1)
        axes.plot([x, x], [ends[1], ends[-2]], color=color, linewidth=5)
        axes.plot(
          x, ends[2], 'o', color=color, markeredgecolor='white', label=label
        )
        label = None  # Once in the legend.
    axes.set(xlabel='iteration', ylabel='tokens')
    axes.set_xticks([row.iteration for row in drawn])
    axes.set_ylim(bottom=0)
    legend_above(axes)

  ends = ', '.join(f'{100 * q:.0f}' for q in QUANTILES)
  caption = f'Length of the samples of the E-step: {ends} % quantiles.'
  return Figure('lengths', 'Length', caption, draw)


def levels(run: Run) -> Figure | None:
  """Test accuracy by level (or by subject where there are no levels)."""
  field = 'levels' if (run.rows[0].test or {})['levels'] else 'subjects'
  names = list((run.rows[0].test or {})[field])[:12]
  if len(names) < 2:
    return None

  def draw(axes: Axes) -> None:
    for row in run.rows:
      values = [100 * (row.test or {})[field].get(name, 0) for name in names]
      axes.plot(
        [shortened(name, 14) for name in names],
        values,
        marker='o',
        color=color_of(row.iteration),
        label=name_of(row.iteration),
      )
    percent_axis(axes, 'test problems solved, %')
    if field == 'subjects':
      axes.tick_params('x', rotation=30)
    axes.legend()

  number = (run.rows[0].test or {})['problems']
  caption = f'Greedy test accuracy by {field[:-1]}; n = {number:,} in all.'
  return Figure('levels', f'Accuracy by {field[:-1]}', caption, draw)


def difficulty(run: Run) -> Figure | None:
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


def loss(run: Run) -> Figure | None:
  """Training loss by step."""
  if not run.steps:
    return None

  def draw(axes: Axes) -> None:
    for iteration, steps in sorted(run.steps.items()):
      x, smooth = series.smoothed(steps)
      color = color_of(iteration)
      axes.plot(x, smooth, color=color, label=name_of(iteration))
    axes.set(xlabel='step', ylabel='loss, nats a token')
    axes.legend()

  caption = (
    'Loss of completion tokens, a running mean over a twentieth of the steps.'
  )
  return Figure('loss', 'Training loss', caption, draw)


def phases(run: Run) -> Figure | None:
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


def comparison(runs: Sequence[Run]) -> Figure:
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
      f'{run.name}: n = {(run.rows[0].test or {})["problems"]:,}'
      for run in runs
    )
    + '.'
  )
  return Figure('comparison', 'Test accuracy', caption, draw)
