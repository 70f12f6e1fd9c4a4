"""What the files of a run say, without its samples."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from etils import epath

from rest.run import store
from rest.run.log import read_journal


@dataclass(frozen=True, slots=True)
class Row:
  """One iteration as its files tell it; what it has not reached is None."""

  iteration: int
  e_step: dict[str, Any] | None
  m_step: dict[str, Any] | None
  validation: dict[str, Any] | None
  test: dict[str, Any] | None
  suites: dict[str, dict[str, Any]]  # Transfer sets, by label.
  seconds: dict[str, float]


@dataclass(frozen=True, slots=True)
class Run:
  """A run: its record, its iterations, and its journal.

  Attributes:
    name: The folder's; told apart from those of other runs by `name_apart`.
    workdir: Where its files are.
    record: run.json, or {} where there is none.
    rows: The iterations that have scores, in order.
    steps: By iteration, the steps of its M-step, in order.
    phases: By (iteration, phase), sums over all times it was worked on.
  """

  name: str
  workdir: epath.Path
  record: dict[str, Any]
  rows: list[Row]
  steps: dict[int, list[dict[str, float]]]
  phases: dict[tuple[int, str], dict[str, float]]

  def config(self, field: str) -> Any:
    """Returns a field of the run's config, or None where it is not known."""
    return self.record.get('config', {}).get(field)


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
      suites={
        path.stem: store.read_json(path)
        for path in sorted((folder / 'suites').glob('*.json'))
      },
      seconds=store.read_json(folder / 'seconds.json') or {},
    )
    if row.test is None:
      return rows
    rows.append(row)


def read_run(workdir: epath.PathLike) -> Run:
  """Reads a run.

  Raises:
    ValueError: The folder holds no iteration with scores.
  """
  workdir = epath.Path(workdir)
  rows = read(workdir)
  if not rows:
    raise ValueError(
      f'{workdir} has no iteration_0/test.json: it is not a run, or its base '
      'model is not measured yet.'
    )
  steps: defaultdict[int, dict[int, dict[str, float]]] = defaultdict(dict)
  phases: defaultdict[tuple[int, str], dict[str, float]] = defaultdict(dict)
  for entry in read_journal(workdir):
    if entry['kind'] == 'train':
      # Steps that a kill undid were taken again: the last counts.
      steps[entry['iteration']][entry['step']] = entry
    elif entry['kind'].startswith('phase/'):
      name = entry['kind'].removeprefix('phase/')
      sums = phases[entry['iteration'], name]
      for key, value in entry.items():
        if key not in ('kind', 'time', 'iteration'):
          sums[key] = sums.get(key, 0) + value
  return Run(
    name=workdir.name,
    workdir=workdir,
    record=store.read_json(workdir / 'run.json') or {},
    rows=rows,
    steps={i: [taken[s] for s in sorted(taken)] for i, taken in steps.items()},
    phases=dict(phases),
  )


def chosen(run: Run) -> Row:
  """Returns the iteration that validation chooses: the first of the best."""
  return max(
    run.rows,
    key=lambda row: (row.validation or {}).get('pass_1', row.iteration),
  )
