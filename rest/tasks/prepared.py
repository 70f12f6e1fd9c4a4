"""Problem sets as tensorflow_datasets copies in array_record files.

`tfds.data_source` reads and this writes them without TensorFlow. Splits are
the published ones: validation is carved when a run starts, from either source.
"""

import dataclasses
import json
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from rest.tasks.problem_set import ProblemSet
from rest.types import Problem, Tests

# Absent values are written as '', which no field means otherwise.
_FIELDS = ('id', 'question', 'answer', 'tests', 'solution', 'level', 'subject')


def prepare(task: ProblemSet, folder: str) -> str:
  """Writes a copy of a task's published splits.

  Args:
    task: What to copy; its `config.path` has the original files.
    folder: Where copies stand; this one gets a folder by name and version.

  Returns:
    The copy's folder, to be used as `task.path`.
  """

  # tfds' own ad hoc builder would import TensorFlow.
  class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    name = f'{task.name}_{task.variant}'.strip('_')
    VERSION = tfds.core.Version(f'{task.version}.0.0')
    url_infos: ClassVar[dict] = {}  # Nothing is downloaded.

    def _info(self) -> Any:
      return tfds.core.DatasetInfo(
        builder=self,
        description=f'Problems of {self.name} for ReST-EM.',
        features=tfds.features.FeaturesDict(
          {field: tfds.features.Text() for field in _FIELDS}
        ),
        metadata=tfds.core.MetadataDict(**_label(task)),
        disable_shuffling=True,  # The order of the original files.
      )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
      return {split: self._generate_examples(split) for split in task.splits}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, Any]]:
      for index, problem in enumerate(problems[split]):
        yield index, _to_record(problem)

  builder = Builder(data_dir=folder, file_format='array_record')
  if builder.data_path.exists():  # tfds would reuse it, however old.
    raise ValueError(
      f'{builder.data_path} exists: delete it or choose another.'
    )
  problems = {split: list(task.read(split)) for split in task.splits}
  builder.download_and_prepare()
  return str(builder.data_path)


def reader(path: str, task: ProblemSet) -> Callable[[str], list[Problem]]:
  """Returns what reads a split of the copy, after a look at its label."""
  builder: Any = tfds.builder_from_directory(path)
  label = builder.info.metadata
  if label != _label(task):
    raise ValueError(
      f'task.path={path!r} was prepared from {label}, but the run needs'
      f' {_label(task)}. Prepare it again.'
    )

  def read(split: str) -> list[Problem]:
    records = builder.as_data_source(split)
    return [_from_record(record) for record in records]

  return read


def _label(task: ProblemSet) -> dict[str, str]:
  return {
    'task': task.name,
    'version': task.version,
    'split': task.variant,
  }


def _to_record(problem: Problem) -> dict[str, str]:
  record = dataclasses.asdict(problem)
  record['tests'] = json.dumps(record['tests']) if problem.tests else ''
  return {field: record[field] or '' for field in _FIELDS}


def _from_record(record: dict[str, bytes]) -> Problem:
  text = {field: record[field].decode() for field in _FIELDS}
  absent = {field: None for field in ('answer', 'solution') if not text[field]}
  tests = None
  if encoded := text.pop('tests'):
    fields = json.loads(encoded)
    fields['inputs'] = tuple(fields['inputs'])
    fields['outputs'] = tuple(fields['outputs'])
    tests = Tests(**fields)
  return Problem(**{**text, **absent}, tests=tests)
