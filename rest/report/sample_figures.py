"""The figures of what became of the samples of each E-step."""

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from rest.e_step.summary import QUANTILES
from rest.report import series
from rest.report.drawing import (
  COLORS,
  FATE_COLORS,
  GREY,
  Figure,
  color_of,
  draw_line,
  legend_above,
  name_of,
  percent_axis,
  shortened,
)
from rest.run.scores import Results


def fates(run: Results) -> Figure | None:
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
        for e in (row.e_step for row in drawn)
      ]
      if any(heights):
        axes.bar(places, heights, 0.6, below, color=color, label=name)
        below = [a + b for a, b in zip(below, heights, strict=True)]
    axes.set_xlabel('iteration')
    axes.grid(visible=False, axis='x')
    percent_axis(axes, 'samples, %')
    legend_above(axes)

  sampled = drawn[0].e_step['sampled']
  caption = (
    f'What became of the {sampled:,} samples of each E-step. Kept samples are '
    'what the model is fine-tuned on.'
  )
  return Figure('fates', 'From samples to training data', caption, draw)


def turnover(run: Results) -> Figure | None:
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


def kept_per_problem(run: Results) -> Figure | None:
  """How many solutions of a problem are kept."""
  return _histogram(
    run,
    'kept_per_problem',
    'Kept solutions of a problem',
    'kept solutions',
    'Problems by how many of their solutions are in the training data.',
  )


def distinct(run: Results) -> Figure | None:
  """How many different right solutions a problem has."""
  return _histogram(
    run,
    'distinct_per_problem',
    'Diversity',
    'different right solutions',
    'Problems by how many different texts are among their right samples.',
  )


def _histogram(
  run: Results, field: str, title: str, label: str, caption: str
) -> Figure | None:
  drawn = [row for row in run.rows if row.e_step and field in row.e_step]
  if not drawn:
    return None

  def draw(axes: Axes) -> None:
    for row in drawn:
      e_step = row.e_step
      sizes = {int(size): count for size, count in e_step[field].items()}
      edges = range(max(sizes) + 1)
      shares = [100 * sizes.get(n, 0) / e_step['problems'] for n in edges]
      draw_line(axes, row.iteration, edges, shares, marker='.')
    axes.set(xlabel=label, ylabel='problems, %')
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()

  problems = drawn[0].e_step['problems']
  return Figure(field, title, f'{caption} n = {problems:,}.', draw)


def reasons(run: Results) -> Figure | None:
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


def lengths(run: Results) -> Figure | None:
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
        if name not in row.e_step['lengths']:
          continue
        ends = row.e_step['lengths'][name]
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
