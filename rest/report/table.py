"""What a run came to, as text."""

from rest.run import tables
from rest.run.scores import Row, gain, percent, points, split_gain


def table(rows: list[Row]) -> str:
  """Returns the table that a run ends with, and the gain over the base."""
  if not rows:
    return 'No iteration is finished yet.'
  text = tables.as_text([_cells(row) for row in rows])
  for row in rows[1:]:
    text += f'\niteration {row.iteration}: {_gain_text(rows[0], row)}'
  return text


def _cells(row: Row) -> dict[str, str]:
  test, e_step = row.test or {}, row.e_step
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
