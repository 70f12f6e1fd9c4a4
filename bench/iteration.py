r"""Times whole iterations of a real run, beside what their parts promise.

  python -m bench.iteration --config=configs/gsm8k.py --workdir=/tmp/run \
    --config.model.path=DIR --config.task.path=FOLDER

The run itself, with all that it writes; flags are those of `rest.main`. Each
phase stands beside the time that `bench.sampling` and `bench.training` would
take for its tokens, scaled to the model as the planner does. 'Drawing' is from
the first prompt in to the last token out; 'waits' is the time of it in which
the device had nothing to do. 'Nothing runs' is what of a phase is neither
drawing nor steps of training.
"""

import itertools
import time
from collections.abc import Iterator, Sequence
from typing import Any

from absl import app, flags, logging
from etils import epath

from bench import sampling
from rest import main
from rest.plan.estimate import Rates
from rest.plan.outline import rates_of
from rest.plan.world import Run
from rest.run.log import read_journal
from rest.sampler import Sampler
from rest.sampler.order import Sampled

Entry = dict[str, Any]

_HEAD = (
  'it phase        seconds  drawing   waits  rows busy  tokens/s'
  '  nothing runs  promised'
)


class _Watched(Sampler):
  """A sampler that tells when its first sample is there."""

  _has_told = False

  def draw(self, *given: Any, **named: Any) -> Iterator[list[Sampled]]:
    """As that of a sampler."""
    for call in super().draw(*given, **named):
      if call and not self._has_told:
        self._has_told = True
        print(f'first sample {sampling.age():.1f} s after the process began')
      yield call


def bench(argv: Sequence[str]) -> None:
  """Runs what the flags say, and prints what it took."""
  del argv
  logging.set_verbosity(logging.WARNING)
  started = time.time() - sampling.age()
  main.Sampler = _Watched
  workdir = epath.Path(main.WORKDIR.value or '')
  run = main.prepare(main.CONFIG.value, workdir)
  with main.hold(run):
    main.iterate(run)
  show(run, started)


def show(run: Run, started: float) -> None:
  """Prints a line for each phase, and one for each iteration.

  Args:
    run: It has come to its end.
    started: Seconds since the epoch: when the process began.
  """
  found = rates_of(run)
  entries = [*read_journal(run.workdir)]
  phases = [e for e in entries if e['kind'].startswith('phase/')]
  print(_HEAD)
  begun = started
  for iteration, group in itertools.groupby(phases, lambda e: e['iteration']):
    steps = [
      entry['time']
      for entry in entries
      if entry['kind'] == 'train' and entry['iteration'] == iteration
    ]
    ended = begun
    for entry in group:
      ended = entry['time']
      print(_line(entry, steps, found))
    if steps:
      print(
        f'   first step {steps[0] - begun:.1f} s after the iteration began; '
        f'{len(steps)} steps in {steps[-1] - steps[0]:.1f} s'
      )
    print(f'{iteration:2} all         {ended - begun:8.1f}', flush=True)
    begun = ended


def _line(entry: Entry, steps: list[float], found: Rates | None) -> str:
  """Returns what a phase took.

  Args:
    entry: Of the phase, in the journal.
    steps: When the steps of training of its iteration were done.
    found: What its parts promise.
  """
  name = entry['kind'].removeprefix('phase/')
  drawing = entry.get('drawing', 0.0)
  training = steps[-1] - steps[0] if name == 'train' and steps else 0.0
  return (
    f'{entry["iteration"]:2} {name:11} {entry["seconds"]:8.1f} {drawing:8.1f} '
    f'{entry.get("idle", 0.0):7.1f} '
    f'{entry.get("busy", 0.0) / max(1.0, entry.get("row_steps", 0.0)):10.2f} '
    f'{entry.get("tokens", 0.0) / max(drawing, 1e-9):9,.0f} '
    f'{entry["seconds"] - drawing - training:13.1f} '
    f'{_promised(found, entry):9.1f}'
  )


def _promised(found: Rates | None, entry: Entry) -> float:
  """Returns the seconds that the tokens of a phase are worth."""
  if found is None:
    return 0.0
  drawn = entry.get('tokens', 0.0) / found.drawn
  return drawn + entry.get('trained', 0.0) / found.trained


if __name__ == '__main__':
  flags.mark_flag_as_required('config')
  flags.mark_flag_as_required('workdir')
  app.run(bench, flags_parser=main.parse)
