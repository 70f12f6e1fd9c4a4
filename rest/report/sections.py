"""The tables and headings of the page, as HTML; all names are escaped."""

import html
from collections.abc import Sequence

from rest.e_step.summary import (
  DUPLICATE,
  INCORRECT,
  OUTVOTED,
  OVER_CAP,
  UNFINISHED,
  UNKNOWN,
)
from rest.run.scores import (
  Results,
  Row,
  chosen,
  gain,
  percent,
  points,
  split_gain,
)
from rest.run.tables import columns

# Columns of the table of E-steps: what was not kept, and why.
_DROPPED = {
  INCORRECT: 'dropped: wrong',
  UNFINISHED: 'right, cut off',
  DUPLICATE: 'right, duplicate',
  OVER_CAP: 'right, over the cap',
  OUTVOTED: 'right, outvoted',
  UNKNOWN: 'unjudged',
}

# What ended the samples: see `rest.types.Completion`.
_ENDED = {
  'token': 'ended by a token',
  'stop': 'by a stop string',
  'limit': 'cut off',
}


def head(runs: Sequence[Results]) -> str:
  """Returns the title, and of one run what it came to."""
  if len(runs) > 1:
    names = ', '.join(html.escape(run.name) for run in runs)
    return f'<h1>{len(runs)} runs</h1><p class="lead">{names}</p>'
  (run,) = runs
  about = [
    run.config('task.name'),
    run.config('model.path'),
    run.record.get('device'),
  ]
  lead = ' · '.join(html.escape(str(text)) for text in about if text)
  return (
    f'<h1>{html.escape(run.name)}</h1><p class="lead">{lead}</p>'
    f'<dl class="tiles">{_tiles(run)}</dl>'
  )


def scores(run: Results) -> str:
  """Returns the table of accuracies."""
  best = chosen(run.rows, run.record)
  table = []
  for row in run.rows:
    test = row.test
    cells = {
      'iteration': _name(row) + (' (chosen)' if row is best else ''),
      'validation': percent(row.validation['pass_1']) if row.validation else '',
      'test pass@1': percent(test['pass_1']),
      '95 %': f'{100 * test["low"]:.1f} to {100 * test["high"]:.1f}',
      'gain over the base': _gain_text(run.rows[0], row),
    }
    if split := split_gain(run.rows[0], row):
      names = ('now readable', 'now right')
      for name, part in zip(names, points(split), strict=True):
        cells[name] = part if row is not run.rows[0] else ''
    for k in sorted(test['pass_at_k'], key=int):
      cells[f'pass@{k}'] = percent(test['pass_at_k'][k])
    if test['maj_at_k'] is not None:
      cells['majority'] = percent(test['maj_at_k'])
    for label, suite in row.suites.items():
      cells[label] = percent(suite['pass_1'])
    cells['cut off'] = percent(test['unfinished'])
    if 'unreadable' in test:
      cells['no readable answer'] = percent(
        len(test['unreadable']) / max(1, test['problems'])
      )
    cells['tokens'] = f'{test["mean_tokens"]:.0f}'
    cells['unjudged'] = f'{test["unknown"]:,}'
    table.append(cells)
  return _table(
    table,
    'Greedy accuracy; intervals are Wilson scores, gains have 95 % paired '
    'bootstrap intervals over test problems. Of a gain, "now readable" is the '
    'part of problems where one of the two models gave no answer that can be '
    'read: it shows a form that was learnt; the rest is "now right". The '
    'iteration is chosen on validation problems; test problems only report.',
  )


def e_steps(run: Results) -> str:
  """Returns what came of the samples of each E-step."""
  table = []
  for row in run.rows:
    if not (e_step := row.e_step):
      continue
    cells = {
      'iteration': str(row.iteration),
      'sampled': f'{e_step["sampled"]:,}',
      'right': percent(e_step['correct'] / e_step['sampled']),
      'kept': f'{e_step["kept"]:,}',
      'problems solved': f'{e_step["solved"]:,} of {e_step["problems"]:,}',
    }
    if 'ended' in e_step:
      for ended, name in _ENDED.items():
        cells[name] = percent(e_step['ended'][ended] / e_step['sampled'])
      cells['no readable answer'] = percent(
        e_step['unreadable'] / e_step['sampled']
      )
    else:  # Of a version that did not say how samples ended.
      cells['cut off'] = percent(1 - e_step['finished'] / e_step['sampled'])
    for fate, name in _DROPPED.items():
      if fate == OUTVOTED and run.config('estep.weight') != 'majority':
        continue
      cells[name] = f'{e_step.get("fates", {}).get(fate, 0):,}'
    table.append(cells)
  if not table:
    return '<p>This run has no E-step.</p>'
  return _table(
    table,
    'What was drawn, and what became of it. Duplicates have the text of a kept '
    'solution of the same problem; the cap is the most solutions kept of one.',
  )


def cost(run: Results) -> str:
  """Returns where time and tokens went."""
  devices = _devices(run)
  table = []
  for row in run.rows:
    sample = run.phases.get((row.iteration, 'sample'), {})
    train = run.phases.get((row.iteration, 'train'), {})
    tests = [
      run.phases.get((row.iteration, name), {})
      for name in ('validation', 'test')
    ]
    cells = {
      'iteration': str(row.iteration),
      'sampling': _seconds(sample),
      'tokens/s drawn': _rate(sample, 'tokens'),
      'rows busy': _share(sample, 'busy', 'row_steps'),
      'device idle': _share(sample, 'idle', 'seconds'),
      'waiting for verdicts': _share(sample, 'waiting', 'seconds'),
      'training': _seconds(train),
      'tokens/s trained': _rate(train, 'trained'),
      'evaluating': _seconds(
        {'seconds': sum(phase.get('seconds', 0) for phase in tests)}
      ),
    }
    kept = row.e_step['kept'] if row.e_step else 0
    if row.e_step and kept and sample:
      drawn = row.e_step['mean_tokens'] * row.e_step['sampled']
      cells['device-seconds a kept sample'] = (
        f'{devices * sample["seconds"] / kept:.3f}'
      )
      cells['tokens drawn a kept sample'] = f'{drawn / kept:,.0f}'
    table.append(cells)
  return _table(
    table,
    'Over all starts of the run. Rows busy is the share of sampler rows that '
    'drew a token at each step; training includes validation on the way. '
    'Rates are those of the first process.',
  )


def configuration(run: Results) -> str:
  """Returns all fields of the config, and the versions."""
  versions = run.record.get('versions', {})
  listed = {**run.record.get('config', {}), **versions}
  rows = ''.join(
    f'<tr><th scope="row">{html.escape(name)}</th>'
    f'<td>{html.escape(str(value))}</td></tr>'
    for name, value in listed.items()
  )
  return (
    '<details><summary>All fields and versions</summary>'
    f'<div class="scroll" tabindex="0"><table><tbody>{rows}</tbody></table>'
    '</div></details>'
  )


def differences(runs: Sequence[Results]) -> str:
  """Returns how the runs differ: in config, and in test accuracy."""
  base, *others = runs
  table = []
  for run in runs:
    row = chosen(run.rows, run.record)
    test = row.test
    table.append(
      {
        'run': run.name,
        'chosen iteration': str(row.iteration),
        'test pass@1': percent(test['pass_1']),
        '95 %': f'{100 * test["low"]:.1f} to {100 * test["high"]:.1f}',
        'gain over its base': _gain_text(run.rows[0], row),
        f'against {base.name}': _gain_text(chosen(base.rows, base.record), row),
        'seconds': f'{_total(run):,.0f}',
      }
    )
  text = _table(
    table,
    'Each run at the iteration that its validation chooses. Differences are '
    'in points, with 95 % paired bootstrap intervals over the test problems '
    'that both have; they do not count the chance of another seed.',
  )
  fields = [
    {'field': name} | {run.name: str(run.config(name)) for run in runs}
    for name in sorted(
      {n for run in runs for n in run.record.get('config', {})}
    )
    if any(run.config(name) != base.config(name) for run in others)
  ]
  if fields:
    text += '<h3>What is set differently</h3>' + _table(fields, '')
  return text


def _tiles(run: Results) -> str:
  best = chosen(run.rows, run.record)
  test, base = best.test, run.rows[0].test
  tiles = [
    (
      f'test pass@1, iteration {best.iteration}',
      percent(test['pass_1']),
      f'base {percent(base["pass_1"])}; n = {test["problems"]:,}',
    )
  ]
  found = gain(run.rows[0], best)
  if best.iteration and found:
    value, *ends = points(found)
    interval = f'95 % interval {" to ".join(ends)}'
    tiles.append(('gain over the base', f'{value} points', interval))
  if best.e_step:
    tiles.append(
      (
        'training data',
        f'{best.e_step["kept"]:,} solutions',
        f'of {best.e_step["sampled"]:,} samples; '
        f'{best.e_step["solved"]:,} of {best.e_step["problems"]:,} problems',
      )
    )
  if total := _total(run):
    device = html.escape(str(run.record.get('device', '?')))
    tiles.append(('time', _duration(total), f'on {device}'))
  return ''.join(
    f'<div><dt>{name}</dt><dd>{value}<small>{more}</small></dd></div>'
    for name, value, more in tiles
  )


def _table(rows: Sequence[dict[str, str]], caption: str) -> str:
  names = columns(rows)
  head = ''.join(f'<th scope="col">{html.escape(name)}</th>' for name in names)
  body = ''
  for row in rows:
    first, *rest = (html.escape(row.get(name, '')) for name in names)
    cells = ''.join(f'<td>{cell}</td>' for cell in rest)
    body += f'<tr><th scope="row">{first}</th>{cells}</tr>'
  # Wide tables scroll by themselves; with the keyboard, too.
  return (
    f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead>'
    f'<tbody>{body}</tbody></table></div>'
    + (f'<p class="note">{html.escape(caption)}</p>' if caption else '')
  )


def _gain_text(before: Row, after: Row) -> str:
  found = gain(before, after)
  if before is after or found is None:
    return ''
  value, low, high = points(found)
  return f'{value} ({low} to {high})'


def _name(row: Row) -> str:
  return str(row.iteration) if row.iteration else '0, the base'


def _duration(seconds: float) -> str:
  if seconds < 36_000:
    return f'{seconds / 60:,.1f} min'
  return f'{seconds / 3600:,.1f} h'


def _devices(run: Results) -> int:
  count = str(run.record.get('device', '1')).split()[0]
  return int(count) if count.isdigit() else 1


def _total(run: Results) -> float:
  return sum(phase.get('seconds', 0.0) for phase in run.phases.values())


def _seconds(phase: dict[str, float]) -> str:
  return f'{phase["seconds"]:,.0f} s' if phase.get('seconds') else ''


def _rate(phase: dict[str, float], name: str) -> str:
  if not phase.get('seconds') or not phase.get(name):
    return ''
  return f'{phase[name] / phase["seconds"]:,.0f}'


def _share(phase: dict[str, float], part: str, whole: str) -> str:
  if part not in phase or not phase.get(whole):
    return ''
  return percent(phase[part] / phase[whole])
