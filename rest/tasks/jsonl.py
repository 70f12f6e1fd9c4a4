"""`jsonl`: problems as records of JSON lines or parquet, without code.

The fields of `rest.config.TaskConfig` say which field of a record is what, how
a question is asked, and who judges. Besides those that they name, the fields
id, solution, level and subject of a record are what they are of a `Problem`.
"""

import json
from typing import Any

from etils import epath

from rest.config import TaskConfig
from rest.tasks import files
from rest.tasks.problem_set import SPLITS, ProblemSet
from rest.types import Problem, Tests
from rest.verify import user_file
from rest.verify.program import malformed

FIELDS = (
  *('verifier', 'template', 'prefix', 'stop', 'question_field'),
  *('answer_field', 'tests_field', 'split_field'),
)


class Jsonl(ProblemSet):
  """Asked by a template, behind a prefix unless the prompt is 'zero_shot'."""

  name = 'jsonl'
  download = 'problems, or write them as such a file,'

  def __init__(self, config: TaskConfig):
    super().__init__(config)
    if '{question}' not in config.template:
      raise ValueError(
        'task.template must hold {question}, where the question is to stand;'
        f' got {config.template!r}.'
      )
    self.verifier = config.verifier
    self.stop = config.stop

  def shots(self) -> str:
    return self.config.prefix

  def question(self, problem: Problem) -> str:
    return self.config.template.replace('{question}', problem.question)

  def read(self, split: str) -> list[Problem]:
    return [
      self._problem(record, f'{split}/{index}')
      for index, record in enumerate(self._records[split])
    ]

  def _published(self) -> dict[str, list[Problem]]:
    self._records = self._read()
    self.splits = tuple(self._records)
    return super()._published()

  def _read(self) -> dict[str, list[files.Record]]:
    """Returns the records of each split that there is."""
    path, field = epath.Path(self.config.path), self.config.split_field
    found: dict[str, list[files.Record]] = {}
    if self.config.path and path.is_file():
      for record in files.read([path]):
        split = record.text(field) if field in record.fields else 'train'
        if split not in SPLITS:
          raise ValueError(
            f'{record.where}: field {field!r} must be one of {SPLITS}, got'
            f' {split!r}.'
          )
        found.setdefault(split, []).append(record)
      return found
    for split in SPLITS:
      names = files.names(split, 'data')
      is_there = any(any(path.glob(name)) for name in names)
      if split == 'train' or is_there:
        found[split] = list(self.records(*names))
    return found

  def _problem(self, record: files.Record, place: str) -> Problem:
    config, is_program = self.config, self.verifier == 'program'
    return Problem(
      id=_text(record, 'id') or place,
      question=record.text(config.question_field),
      answer=None if is_program else self._answer(record),
      tests=read_tests(record, config.tests_field) if is_program else None,
      solution=_text(record, 'solution'),
      level=_text(record, 'level') or '',
      subject=_text(record, 'subject') or '',
    )

  def _answer(self, record: files.Record) -> str | None:
    field = self.config.answer_field
    if user_file.is_named(self.verifier):
      value = record.fields.get(field)
      if value is not None and not isinstance(value, str):
        return json.dumps(value, default=str)
      return value
    if answer := _text(record, field):
      return answer
    return record.text(field)


def read_tests(record: files.Record, field: str) -> Tests:
  """Returns the tests of a record: assertions, or the fields of `Tests`.

  Raises:
    ValueError: They are not as `rest.types.Tests` says.
  """
  where = f'{record.where}, {field}'
  given = record.fields.get(field)
  if isinstance(given, str) and given.lstrip().startswith('{'):
    given = files.load(given, where)
  if isinstance(given, str):
    tests = Tests('assert', given)
  elif isinstance(given, list):
    tests = Tests('assert', '\n'.join(record.texts(field)))
  else:
    known = given if isinstance(given, dict) else record.object(field)
    # Tables have a value for each field of all records.
    of = files.Record({k: v for k, v in known.items() if v is not None}, where)
    of.text('kind')
    if strangers := sorted(of.fields.keys() - Tests.__slots__):
      raise ValueError(
        f'{where}: fields are {Tests.__slots__}, not {strangers}.'
      )
    lists = ('inputs', 'outputs')
    fields: dict[str, Any] = {
      name: of.texts(name) if name in lists else of.text(name)
      for name in of.fields
    }
    tests = Tests(**fields)
  try:
    malformed.check(tests)
  except ValueError as error:
    raise ValueError(f'{where}: {error}') from error
  return tests


def _text(record: files.Record, field: str) -> str | None:
  """Returns a text, or a number as text; None where there is neither."""
  value = record.fields.get(field)
  if isinstance(value, int | float) and not isinstance(value, bool):
    return str(value)
  return None if value is None else record.text(field)
