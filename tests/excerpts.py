"""Problem sets of `tests/data/tasks`, as they are and with a record changed."""

import gzip
import json
import pathlib
from collections.abc import Callable
from typing import Any

from rest import tasks
from rest.tasks.problem_set import ProblemSet
from rest.types import Problem, Task

DATA = pathlib.Path(__file__).parent / 'data' / 'tasks'


def make(name: str, path: object = None, **fields) -> ProblemSet:
  fields = {'num_validation': 1, **fields}
  return tasks.make(tasks.TaskConfig(name, str(path or DATA / name), **fields))


def by_id(task: Task) -> dict[str, Problem]:
  return {p.id: p for split in tasks.SPLITS for p in task.problems(split)}


def records_of(file: str) -> list[dict[str, Any]]:
  data = (DATA / file).read_bytes()
  data = gzip.decompress(data) if file.endswith('.gz') else data
  return [json.loads(line) for line in data.splitlines()]


def copy_with(
  source: str,
  target: pathlib.Path,
  change: Callable[[list[dict[str, Any]]], None],
) -> pathlib.Path:
  """Writes an excerpt again with its records changed; returns its folder."""
  records = records_of(source)
  change(records)
  path = target / pathlib.Path(source).name.removesuffix('.gz')
  path.write_text('\n'.join(map(json.dumps, records)) + '\n')
  return target
