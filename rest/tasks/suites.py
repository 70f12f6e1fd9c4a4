"""Transfer suites: problems of other sets that a run is tested on."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from etils import epath

from rest import tasks
from rest.config import TaskConfig
from rest.tasks import leaks
from rest.tasks.problem_set import choose
from rest.types import Problem, Task

_NAME = re.compile(r'(?P<task>\w+)(/(?P<split>\w+))?(:(?P<prompt>\w+))?')


@dataclass(frozen=True, slots=True)
class Suite:
  """One suite, without what the training problems give away.

  Attributes:
    label: Names its files, such as 'bbh-direct'.
    task: Asks and says who judges.
    problems: What is asked.
    leaks: What was dropped.
  """

  label: str
  task: Task
  problems: tuple[Problem, ...]
  leaks: tuple[leaks.Leak, ...]


def make(
  task: Task,
  names: Sequence[str],
  folder: str,
  size: int,
  model: str,
  system: str = '',
) -> tuple[Suite, ...]:
  """Returns the suites that a run on a task is tested on.

  Args:
    task: What the run trains on.
    names: A task, and where it is not the usual one its variant and its prompt:
      'gsm8k', 'bbh:direct', 'bbh/navigate:cot'.
    folder: Holds each set's files in a folder of the set's name.
    size: Most problems of each, a nested random subset; 0 is all.
    model: A checkpoint directory, which has the form of a chat.
    system: What the system turn of a chat says.

  Raises:
    ValueError: A name is not one of a suite, or its files are not there.
  """
  suites = tuple(
    _make(task, name, folder, size, model, system) for name in names
  )
  if len({suite.label for suite in suites}) < len(suites):
    raise ValueError(f'eval.suites names one suite twice: {tuple(names)}.')
  return suites


def _make(
  task: Task, name: str, folder: str, size: int, model: str, system: str
) -> Suite:
  match = _NAME.fullmatch(name)
  if match is None:
    raise ValueError(
      f"eval.suites must hold names such as 'gsm8k' or 'bbh:direct', got "
      f'{name!r}.'
    )
  parts = match.groupdict(default='')
  path = epath.Path(folder) / parts['task']
  config = TaskConfig(
    name=parts['task'],
    path=str(path) if folder else '',
    prompt=parts['prompt'],
    system=system if parts['prompt'] == 'chat' else '',
    split=parts['split'],
    num_validation=0,
  )
  try:
    suite = tasks.for_model(config, model)
    problems = suite.problems('test')
  except ValueError as error:
    raise ValueError(f'eval.suites, {name!r}: {error}') from error
  if size:
    problems = choose(problems, min(size, len(problems)), 'eval', seed=0)
  found = leaks.find_in_suite(task, suite)
  return Suite(
    label=re.sub(r'\W', '-', name),
    task=suite,
    problems=tuple(leaks.drop(problems, found, 'test')),
    leaks=tuple(found),
  )
