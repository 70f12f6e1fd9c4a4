"""What a run came to, as text."""

from rest import metrics
from rest.report.read import Row


def table(rows: list[Row]) -> str:
  """Returns the table that a run ends with, and the gain over the base."""
  if not rows:
    return 'No iteration is finished yet.'
  text = metrics.format_table([_cells(row) for row in rows])
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


def gain(before: Row, after: Row) -> tuple[float, float, float] | None:
  """Returns the gain in test pass@1, with its paired 95 % interval.

  None where the two have no problem in common.
  """
  scores = [(row.test or {})['scores'] for row in (before, after)]
  common = sorted(scores[0].keys() & scores[1].keys())
  if not common:
    return None
  first, second = ([score[name] for name in common] for score in scores)
  return metrics.paired_gain(first, second)


def split_gain(before: Row, after: Row) -> tuple[float, float] | None:
  """Returns the parts of a gain: answers now readable, answers now right.

  A problem counts to the first if either answer was none that a verifier could
  read: the model has learnt (or forgotten) how to answer. The second is of
  problems that both have answered: there it has learnt what to answer. None in
  runs of versions that did not note it.

  Example: of 10 problems, 3 were without an answer, of which 2 are now right;
  1 that was wrong is now right: a gain of 0.3, split into 0.2 and 0.1.
  """
  tests = [row.test or {} for row in (before, after)]
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


def percent(share: float) -> str:
  """Returns a share as a percentage, to a tenth."""
  return f'{100 * share:.1f} %'


def _gain_text(base: Row, row: Row) -> str:
  found = gain(base, row)
  if found is None:
    return 'no test problem in common with the base'
  points = [f'{100 * value:+.1f}' for value in found]
  return (
    f'test pass@1 {points[0]} points over the base '
    f'(95 % paired bootstrap interval {points[1]} to {points[2]})'
    + (
      f': {100 * split[0]:+.1f} answers now readable, {100 * split[1]:+.1f} '
      'answers now right'
      if (split := split_gain(base, row))
      else ''
    )
  )
