"""Reads the original files of problem sets, and says what is wrong in them."""

import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from typing import Any

from etils import epath


@dataclass(frozen=True, slots=True)
class Record:
  """One record of a file, which knows where it stands."""

  fields: dict[str, Any]
  where: str

  def text(self, name: str) -> str:
    return self._typed(name, str)

  def integer(self, name: str) -> int:
    return self._typed(name, int)

  def records(self, name: str) -> list[dict[str, Any]]:
    values = self._typed(name, list)
    if not all(isinstance(value, dict) for value in values):
      raise ValueError(f'{self.where}: field {name!r} must list only objects.')
    return values

  def texts(self, name: str) -> tuple[str, ...]:
    values = self._typed(name, list)
    if not all(isinstance(value, str) for value in values):
      raise ValueError(f'{self.where}: field {name!r} must list only text.')
    return tuple(values)

  def _typed(self, name: str, kind: type) -> Any:
    if name not in self.fields:
      raise ValueError(
        f'{self.where}: field {name!r} is missing; there are'
        f' {sorted(self.fields)}.'
      )
    value = self.fields[name]
    if not isinstance(value, kind):
      raise ValueError(
        f'{self.where}: field {name!r} must be {kind.__name__}, got'
        f' {value!r:.60}.'
      )
    return value


def find(folder: str, names: tuple[str, ...], download: str) -> epath.Path:
  """Returns the first of the files that is there.

  Args:
    folder: `task.path`.
    names: Files in the folder, the preferred one first.
    download: What to download, for the error.
  """
  for name in names:
    path = epath.Path(folder) / name
    if folder and path.exists():
      return path
  wanted = ' or '.join(names)
  raise ValueError(
    f'task.path={folder!r} has no {wanted}. Download {download} and set'
    f' task.path to the folder that holds it.'
  )


def read_jsonl(path: epath.Path) -> Iterator[Record]:
  """Yields the records of a .jsonl or .jsonl.gz file."""
  empty = True
  for number, line in enumerate(_lines(path), start=1):
    if line.strip():
      empty = False
      yield parse(line, f'{path}, line {number}')
  if empty:
    raise ValueError(f'{path}: no records in this file.')


def _lines(path: epath.Path) -> Iterator[bytes]:
  with path.open('rb') as file:
    if not path.name.endswith('.gz'):
      yield from file
      return
    try:
      with gzip.open(file) as unpacked:
        yield from unpacked
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
      raise ValueError(f'{path}: not a whole gzip file: {error}') from error


def parse(data: bytes, where: str) -> Record:
  """Returns the record of one JSON text."""
  try:
    fields = json.loads(data)
  except ValueError as error:  # Also what is not UTF-8.
    raise ValueError(f'{where}: not JSON: {error}') from error
  if not isinstance(fields, dict):
    raise ValueError(f'{where}: must be a JSON object, got {fields!r:.60}.')
  return Record(fields, where)


def prompt_text(name: str) -> str:
  """Returns a text of `rest/tasks/prompts`."""
  path = resources.files('rest.tasks').joinpath(f'prompts/{name}')
  return path.read_text('utf-8')
