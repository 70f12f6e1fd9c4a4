"""What a run is, as run.json keeps it, and whether it may go on here."""

import dataclasses
import importlib.metadata
import json
import platform
from collections.abc import Sequence
from typing import Any

from etils import epath

import rest
from rest import tasks
from rest.config import FREE_FIELDS, Config
from rest.run import digests, store
from rest.tasks.leaks import Leak
from rest.tasks.suites import Suite
from rest.types import Task

_PACKAGES = (
  *('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy'),
  *('mpmath', 'sentencepiece', 'tokenizers'),
)


def record(
  config: Config,
  task: Task,
  leaks: Sequence[Leak],
  suites: Sequence[Suite],
  device: str,
) -> dict[str, Any]:
  """Returns what a run is, in JSON values.

  Args:
    config: Told field by field.
    task: Its problems are told by their digest, the base model by its own.
    leaks: Training problems dropped.
    suites: What else is tested.
    device: On what it runs, for people.
  """
  versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
  fields = {
    'config': flat(dataclasses.asdict(config)),
    'data': tasks.digest(task),
    'base': store.hash_files(config.model.path),
    'versions': {
      'rest': rest.__version__,
      'python': platform.python_version(),
      **versions,
    },
    'device': device,
    'prefix': task.prefix,
    'leaks': [dataclasses.asdict(leak) for leak in leaks],
    'suites': {
      suite.label: {
        'data': store.hash_problems(suite.problems),
        'leaks': [dataclasses.asdict(leak) for leak in suite.leaks],
      }
      for suite in suites
    },
  }
  return json.loads(json.dumps(fields))  # Tuples become lists, as on disk.


def flat(tree: dict[str, Any], prefix: str = '') -> dict[str, Any]:
  """Returns a config's fields by their full names."""
  fields: dict[str, Any] = {}
  for name, value in tree.items():
    if isinstance(value, dict):
      fields |= flat(value, f'{prefix}{name}.')
    else:
      fields[prefix + name] = value
  return fields


def compare(here: dict[str, Any], workdir: epath.Path) -> None:
  """Refuses a folder that holds a run that differs where it matters.

  Raises:
    ValueError: Names the fields, with both values.
    Damaged: run.json is lost, or not what was written.
  """
  path = workdir / 'run.json'
  if not path.exists():
    if (workdir / 'problems.jsonl').exists():  # It was written after run.json.
      raise store.Damaged(f'{path} is missing. {store.ADVICE}')
    return
  known = store.read_record(workdir)
  if not digests.is_whole(path):
    raise store.Damaged(f'{path} is not what was written. {store.ADVICE}')
  found = differences(here['config'], known['config'])
  for name in ('data', 'base'):
    if known[name] != here[name]:
      found.append(f'the {name} changed ({known[name]}, {here[name]})')
  if found:
    raise ValueError(
      f'{workdir} holds a run of another config: {"; ".join(found)}. '
      'Choose another --workdir, or set these fields back.'
    )


def differences(config: dict[str, Any], known: dict[str, Any]) -> list[str]:
  """Returns what two configs, told field by field, differ in that matters.

  A field that is younger than a run has had its default there.
  """
  defaults = _told(Config())
  return [
    f'{name} was {known.get(name)!r}, now {value!r}'
    for name, value in config.items()
    if known.get(name, defaults[name]) != value and name not in FREE_FIELDS
  ]


def is_finished(config: Config, workdir: epath.Path) -> bool:
  """Whether a run of this config came to its end; looks at files alone.

  One of whose files some are lost or damaged did not: it has them to make.
  """
  listed = [workdir / name for name in ('run.json', 'finished.json')]
  if not all(map(digests.is_whole, listed)):
    return False
  try:
    finished = store.read_json(workdir / 'finished.json')
    known = store.find_record(workdir)
    if not known or finished['asked'] < config.em.iterations:
      return False
    if differences(_told(config), known['config']):
      return False
    return all(map(digests.are_whole, workdir.glob('iteration_*')))
  except (store.Damaged, KeyError, TypeError):  # Or one is not there.
    return False


def _told(config: Config) -> dict[str, Any]:
  """Returns a config's fields as JSON values: tuples become lists."""
  return json.loads(json.dumps(flat(dataclasses.asdict(config))))
