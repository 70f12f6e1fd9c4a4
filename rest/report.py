"""What a run came to, read from its working directory: a table and a picture.

Works on running and finished runs alike, without JAX, so that a notebook on any
machine can open a run.
"""

import io
from dataclasses import dataclass
from typing import Any

from etils import epath

from rest import metrics, store


@dataclass(frozen=True, slots=True)
class Row:
  """One iteration as its files tell it; what it has not reached is None."""

  iteration: int
  e_step: dict[str, Any] | None
  m_step: dict[str, Any] | None
  validation: dict[str, Any] | None
  test: dict[str, Any] | None
  seconds: dict[str, float]


def read(workdir: epath.PathLike) -> list[Row]:
  """Returns the iterations of a run that have any scores, in order."""
  rows = []
  while True:
    folder = epath.Path(workdir) / f'iteration_{len(rows)}'
    row = Row(
      iteration=len(rows),
      e_step=store.read_json(folder / 'e_step.json'),
      m_step=store.read_json(folder / 'm_step.json'),
      validation=store.read_json(folder / 'validation.json'),
      test=store.read_json(folder / 'test.json'),
      seconds=store.read_json(folder / 'seconds.json') or {},
    )
    if row.test is None:
      return rows
    rows.append(row)


def table(rows: list[Row]) -> str:
  """Returns the table that a run ends with, and the gain over the base."""
  if not rows:
    return 'No iteration is finished yet.'
  text = metrics.format_table([_cells(row) for row in rows])
  for row in rows[1:]:
    text += f'\niteration {row.iteration}: {_gain(rows[0], row)}'
  return text


def write(workdir: epath.Path) -> None:
  """Writes results.txt and results.png into the run's directory."""
  rows = read(workdir)
  store.write_whole(workdir / 'results.txt', table(rows) + '\n')
  (workdir / 'results.png').write_bytes(picture(rows))


def picture(rows: list[Row]) -> bytes:
  """Returns a PNG: accuracy by iteration, and what became of the samples."""
  # Not through pyplot: no global state, and no window where there is a screen.
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  figure = Figure(figsize=(10, 4), layout='constrained')
  FigureCanvasAgg(figure)
  scores, samples = figure.subplots(1, 2)
  _draw_scores(scores, rows)
  _draw_samples(samples, rows)
  buffer = io.BytesIO()
  figure.savefig(buffer, format='png', dpi=120)
  return buffer.getvalue()


def _draw_scores(axes: Any, rows: list[Row]) -> None:
  iterations = [row.iteration for row in rows]
  tests = [row.test or {} for row in rows]
  pass_1 = [100 * test['pass_1'] for test in tests]
  below = [100 * (test['pass_1'] - test['low']) for test in tests]
  above = [100 * (test['high'] - test['pass_1']) for test in tests]
  axes.errorbar(
    iterations,
    pass_1,
    [below, above],
    marker='o',
    capsize=4,
    label='pass@1, greedy',
  )
  for k in sorted(tests[0]['pass_at_k'], key=int):
    values = [100 * test['pass_at_k'][k] for test in tests]
    axes.plot(iterations, values, '--', marker='.', label=f'pass@{k}, sampled')
  if tests[0]['maj_at_k'] is not None:
    values = [100 * test['maj_at_k'] for test in tests]
    axes.plot(iterations, values, ':', marker='s', label='majority vote')
  axes.set(xlabel='iteration (0 is the base model)', ylabel='test problems, %')
  axes.set_xticks(iterations)
  axes.set_ylim(0, 100)
  axes.grid(alpha=0.3)
  axes.legend(fontsize='small', loc='lower right')


def _draw_samples(axes: Any, rows: list[Row]) -> None:
  drawn = [row for row in rows if row.e_step]
  for offset, name in enumerate(('correct', 'kept')):
    shares = [
      100 * row.e_step[name] / row.e_step['sampled']
      for row in drawn
      if row.e_step
    ]
    places = [row.iteration + 0.25 * (offset - 1) for row in drawn]
    axes.bar(places, shares, 0.25, label=f'{name}, % of samples')
  shares = [
    100 * row.e_step['solved'] / row.e_step['problems']
    for row in drawn
    if row.e_step
  ]
  places = [row.iteration + 0.25 for row in drawn]
  axes.bar(places, shares, 0.25, label='solved, % of problems')
  axes.set(xlabel='iteration', ylabel='E-step, %')
  axes.set_xticks([row.iteration for row in drawn])
  axes.set_ylim(0, 100)
  axes.grid(alpha=0.3, axis='y')
  if drawn:
    axes.legend(
      fontsize='small', ncols=3, loc='upper center', bbox_to_anchor=(0.5, 1.1)
    )


def _cells(row: Row) -> dict[str, str]:
  test, e_step = row.test or {}, row.e_step
  cells = {'iteration': str(row.iteration)}
  for name in ('sampled', 'correct', 'kept'):
    cells[name] = f'{e_step[name]:,}' if e_step else '-'
  cells['solved'] = (
    _percent(e_step['solved'] / e_step['problems']) if e_step else '-'
  )
  cells['validation'] = (
    _percent(row.validation['pass_1']) if row.validation else '-'
  )
  cells['test pass@1 [95 %]'] = (
    f'{_percent(test["pass_1"])} '
    f'[{100 * test["low"]:.1f}, {100 * test["high"]:.1f}]'
  )
  for k in sorted(test['pass_at_k'], key=int):
    cells[f'pass@{k}'] = _percent(test['pass_at_k'][k])
  if test['maj_at_k'] is not None:
    cells['maj@k'] = _percent(test['maj_at_k'])
  for phase in ('sample', 'waiting', 'train', 'validation', 'test'):
    name = 'verify wait' if phase == 'waiting' else phase
    cells[f'{name} s'] = (
      f'{row.seconds[phase]:.0f}' if phase in row.seconds else '-'
    )
  return cells


def _gain(base: Row, row: Row) -> str:
  before = (base.test or {})['scores']
  after = (row.test or {})['scores']
  common = sorted(before.keys() & after.keys())
  gain, low, high = metrics.paired_gain(
    [before[name] for name in common], [after[name] for name in common]
  )
  return (
    f'test pass@1 {100 * gain:+.1f} points over the base '
    f'(95 % paired bootstrap interval {100 * low:+.1f} to {100 * high:+.1f})'
  )


def _percent(share: float) -> str:
  return f'{100 * share:.1f} %'
