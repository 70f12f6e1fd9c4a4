"""Gives a run what another has drawn already: the same samples, not like ones.

A sample is a function of the weights, the prompt and, unless it is greedy, the
seed, its purpose and its number, so that arms of an experiment have the base
model's answers in common: all its evaluations, and the first E-step, however
many samples or problems of it each arm asks for.
"""

import os
import pathlib
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rest.run import store
from rest.types import Problem, Task

# What decides samples, whatever they are for; both lengths do with longrope.
_ALWAYS = (
  'model.dtype',
  'sampling.max_tokens',
  'sampling.max_prompt_tokens',
)
_START = 'em.start_from'
# What shows only in the second iteration.
_LATER = (
  'em.accumulate',
  'em.iterations',
  _START,
  'em.stop_on_validation',
)


@dataclass(frozen=True, slots=True)
class Wanted:
  """Samples of the base model that a run will need.

  Attributes:
    folder: Of the parts, in the run's directory; in the other's as well.
    fields: Config fields that decide them, beside those that always do.
    task: Asks.
    problems: All of them, in order.
    num_samples: Of each.
  """

  folder: str
  fields: tuple[str, ...]
  task: Task
  problems: Sequence[Problem]
  num_samples: int


def first_samples(
  source: pathlib.Path,
  target: pathlib.Path,
  record: Mapping[str, Any],
  wanted: Sequence[Wanted],
) -> int:
  """Copies samples of the base model that another run has drawn.

  Args:
    source: The other run's directory.
    target: The directory of the run that needs them.
    record: What that run is: see `rest.run.record.record`.
    wanted: What it needs.

  Returns:
    The number of samples that need not be drawn.
  """
  known = store.find_record(source)
  if known is None or _differ(known, record, ('base', 'prefix')):
    return 0
  copied = 0
  for want in wanted:
    if _differ(known['config'], record['config'], _ALWAYS + want.fields):
      continue
    there, here = (
      store.Parts(folder / want.folder) for folder in (source, target)
    )
    indices = {problem.id: i for i, problem in enumerate(want.problems)}
    done = here.done()
    if done.issuperset(indices.values()):
      continue  # Reading a whole E-step takes seconds.
    for drawn in there.read_done():
      index = indices.get(drawn[0].problem_id)
      if index is None or index in done:
        continue
      rows = drawn[: want.num_samples]
      asked = want.task.question(want.problems[index])
      if len(rows) == want.num_samples and rows[0].prompt == asked:
        here.write(index, rows)
        copied += len(rows)
  return copied


def first_iteration(
  source: pathlib.Path,
  target: pathlib.Path,
  record: Mapping[str, Any],
  ignored: Collection[str],
) -> bool:
  """Copies the whole first iteration where the runs part only after it.

  Args:
    source: The other run's directory.
    target: The directory of the run that needs it.
    record: What that run is.
    ignored: Config fields that change no result.

  Returns:
    Whether it was copied.
  """
  known = store.find_record(source)
  folders = [path / 'iteration_1' for path in (source, target)]
  if known is None or _differ(known, record, ('base', 'data', 'prefix')):
    return False
  names = [
    name
    for name in record['config']
    if name not in ignored and name not in _LATER
  ]
  if _differ(known['config'], record['config'], names):
    return False
  starts = [known['config'].get(_START), record['config'].get(_START)]
  if starts[1] == 'previous_state' != starts[0]:
    return False  # It lacks the optimizer's state.
  is_whole = any(
    (source / name).exists() for name in ('iteration_2', 'finished.json')
  )
  if folders[1].exists() or not is_whole:
    return False
  partial = target / f'iteration_1.partial-{os.getpid()}'
  shutil.copytree(folders[0], partial)
  partial.rename(folders[1])
  return True


def _differ(
  one: Mapping[str, Any], other: Mapping[str, Any], names: Sequence[str]
) -> bool:
  return any(one.get(name) != other.get(name) for name in names)
