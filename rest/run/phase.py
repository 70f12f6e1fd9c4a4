"""One phase of an iteration: done before or done now, timed, and told."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from etils import epath

from rest.run import digests, processes, store
from rest.run.progress import Live


@dataclass(slots=True)
class Phase:
  """A phase under way.

  Attributes:
    folder: Of the iteration.
    done: Whether its last file was there already: then there is nothing to do.
    values: What the log tells of it, by name; the caller adds to it.
    result: What its last file is to hold; None if the caller writes that file.
  """

  folder: epath.Path
  done: bool
  values: dict[str, float] = field(default_factory=dict)
  result: dict[str, Any] | None = None


@contextlib.contextmanager
def phase(
  live: Live,
  counts: Callable[[], dict[str, float]],
  folder: epath.Path,
  iteration: int,
  name: str,
  *makes: str,
) -> Iterator[Phase]:
  """Does what all phases have in common, around what is a phase's own.

  A phase is over once what it `makes` is there: a run that was killed
  begins it anew, and it goes on by the parts that it finds. What the phase took
  of time and device is told to the log, whatever ends it; `seconds.json` and
  the last file are written only where it came to its end, by the first
  process, and no process leaves before that.

  Example: 'test' of iteration 2 makes iteration_2/test.json. Its caller draws
  and judges, sets `result` to the scores, and returns.

  Args:
    live: Tells.
    counts: Tells what sampling took so far, by name; the log gets what is new.
    folder: Of the iteration.
    iteration: Counted from 1; 0 is the base model.
    name: What log, report and seconds.json call it.
    *makes: The files that are looked for; the last is the last that it writes.
  """
  first, files = processes.is_first(), [folder / name for name in makes]
  # All are looked at, so that all that are damaged are out of the way.
  whole = [digests.is_there(path, live.journal.say) for path in files if first]
  done = first and all(whole)
  here = Phase(folder, processes.first_says(done))
  if here.done:
    yield here
    return
  before, started = counts(), time.monotonic()
  with live.phase(name, iteration) as here.values:
    try:
      yield here
    finally:
      here.values |= {key: n - before[key] for key, n in counts().items()}
  if first:
    seconds = {name: time.monotonic() - started}
    if 'waiting' in here.values:
      seconds['waiting'] = here.values['waiting']
    _add_seconds(folder, seconds)
    if here.result is not None:
      store.write_json(files[-1], here.result)
    for path in files:
      if path.parent.name != 'hf':  # Others read it, and find nothing of ours.
        digests.note(path)
  processes.barrier(f'iteration {iteration}: {name}')


def _add_seconds(folder: epath.Path, seconds: dict[str, float]) -> None:
  path = folder / 'seconds.json'
  rounded = {name: round(value, 1) for name, value in seconds.items()}
  store.write_json(path, store.read_seconds(path) | rounded)
