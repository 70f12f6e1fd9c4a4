"""What a run writes of itself: results.txt, results.png, report.html."""

from etils import epath

from rest.report import drawing, figures
from rest.report.page import write_page
from rest.run import store, tables
from rest.run.scores import (
  Results,
  Row,
  gain,
  percent,
  points,
  read,
  split_gain,
)


def write(workdir: epath.Path) -> None:
  """Writes the results of a run into its directory."""
  rows = read(workdir)
  store.write_whole(workdir / 'results.txt', table(rows) + '\n')
  store.write_whole(workdir / 'results.png', picture(rows))
  write_page([workdir], workdir / 'report.html')


def picture(rows: list[Row]) -> bytes:
  """Returns a PNG of the two figures that say most: accuracy, and fates."""
  run = Results('', epath.Path(), {}, rows, {}, {})
  shown = [figures.accuracy(run), figures.fates(run)]
  return drawing.save(shown, 'png', size=(10, 4), dpi=120)


def table(rows: list[Row]) -> str:
  """Returns the table that a run ends with, and the gain over the base."""
  if not rows:
    return 'No iteration is finished yet.'
  text = tables.as_text([_cells(row) for row in rows])
  for row in rows[1:]:
    text += f'\niteration {row.iteration}: {_gain_text(rows[0], row)}'
  return text


def _cells(row: Row) -> dict[str, str]:
  test, e_step = row.test, row.e_step
  cells = {'iteration': str(row.iteration)}
  for name in ('sampled', 'correct', 'kept'):
    cells[name] = f'{e_step[name]:,}' if e_step else '-'
  cells['solved'] = (
    percent(e_step['solved'] / e_step['problems']) if e_step else '-'
  )
  cells['validation'] = (
    percent(row.validation['pass_1']) if row.validation else '-'
  )
  cells['test pass@1 [95 %]'] = (
    f'{percent(test["pass_1"])} '
    f'[{100 * test["low"]:.1f}, {100 * test["high"]:.1f}]'
  )
  for k in sorted(test['pass_at_k'], key=int):
    cells[f'pass@{k}'] = percent(test['pass_at_k'][k])
  if test['maj_at_k'] is not None:
    cells['maj@k'] = percent(test['maj_at_k'])
  for phase in ('sample', 'waiting', 'train', 'validation', 'test'):
    name = 'verify wait' if phase == 'waiting' else phase
    cells[f'{name} s'] = (
      f'{row.seconds[phase]:.0f}' if phase in row.seconds else '-'
    )
  return cells


def _gain_text(base: Row, row: Row) -> str:
  found = gain(base, row)
  if found is None:
    return 'no test problem in common with the base'
  value, low, high = points(found)
  text = (
    f'test pass@1 {value} points over the base '
    f'(95 % paired bootstrap interval {low} to {high})'
  )
  if split := split_gain(base, row):
    readable, right = points(split)
    text += f': {readable} answers now readable, {right} answers now right'
  return text
