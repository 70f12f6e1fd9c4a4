"""Reads the files of problem sets, and says what is wrong in them.

Sets come as their authors' JSON lines, or as parquet: a file a split, or shards
such as train-00000-of-00002.parquet, perhaps in a folder of the variant's name.
"""

import contextlib
import gzip
import json
import re
import sys
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import resources
from typing import Any

from etils import epath

_SHARD = re.compile(r'(.*-)\d+-of-(\d+)(?:\.\w+)*')

_KINDS = {str: 'text', int: 'an integer', list: 'a list', dict: 'an object'}


@dataclass(frozen=True, slots=True)
class Record:
  """One record of a file, which knows where it stands."""

  fields: dict[str, Any]
  where: str

  def text(self, name: str) -> str:
    return self._typed(name, str)

  def integer(self, name: str) -> int:
    return self._typed(name, int)

  def object(self, name: str) -> dict[str, Any]:
    return self._typed(name, dict)

  def objects(self, name: str) -> list['Record']:
    where = f'{self.where}, {name}'
    return [_record(value, where) for value in self._typed(name, list)]

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
        f'{self.where}: field {name!r} must be {_KINDS[kind]}, got'
        f' {value!r:.60}.'
      )
    return value


def names(split: str, *folders: str) -> tuple[str, ...]:
  """Returns the names that files of a split may have, for `find`.

  Args:
    split: Such as 'train'.
    *folders: Where they may be, besides the folder itself; patterns, too.
  """
  return tuple(
    folder + name
    for folder in ('', *(f'{folder}/' for folder in folders))
    for name in (
      f'{split}.jsonl',
      f'{split}.jsonl.gz',
      f'{split}.parquet',
      f'{split}-*.parquet',
      f'{split}/*.parquet',
    )
  )


def find(
  folder: str, names: tuple[str, ...], download: str
) -> list[epath.Path]:
  """Returns the files, in order, of the first name that is there.

  Args:
    folder: `task.path`.
    names: Files in the folder, or patterns of files, the preferred one first.
    download: What to download, for the error.
  """
  for name in names if folder else ():
    if found := sorted(epath.Path(folder).glob(name)):
      _check_shards(found)
      return found
  wanted = ' or '.join(name for name in names if '/' not in name)
  raise ValueError(
    f'task.path={folder!r} has no {wanted}. Download {download} and set'
    f' task.path to the folder that holds it.'
  )


def read(paths: Iterable[epath.Path]) -> Iterator[Record]:
  """Yields the records of files, by the form that their names tell."""
  readers = {'.parquet': _read_parquet, '.json': _read_json}
  for path in paths:
    yield from readers.get(path.suffix, read_jsonl)(path)


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


def _check_shards(paths: list[epath.Path]) -> None:
  """Refuses tables of which a file is missing."""
  tables: dict[tuple[epath.Path, str, int], int] = {}
  for path in paths:
    if match := _SHARD.fullmatch(path.name):
      table = path.parent, match.group(1), int(match.group(2))
      tables[table] = tables.get(table, 0) + 1
  for (folder, name, count), found in tables.items():
    if found != count:
      raise ValueError(
        f'{folder} has {found} of the {count} files {name}*-of-{count:05d}.'
      )


def _read_json(path: epath.Path) -> Iterator[Record]:
  """Yields the records of a file that is one list, or has it as `examples`."""
  items = load(path.read_bytes(), str(path))
  if isinstance(items, dict):
    items = items.get('examples')
  if not isinstance(items, list) or not items:
    raise ValueError(f'{path}: must be a list of records, got {items!r:.60}.')
  for number, fields in enumerate(items, start=1):
    yield _record(fields, f'{path}, record {number}')


def _read_parquet(path: epath.Path) -> Iterator[Record]:
  try:
    import pyarrow.lib
    from pyarrow import parquet
  except ImportError as error:
    raise ValueError(
      f"{path}: parquet is read by pyarrow: pip install 'rest[parquet]'."
    ) from error
  with path.open('rb') as file:
    try:
      table = parquet.read_table(file)
    except pyarrow.lib.ArrowInvalid as error:
      raise ValueError(f'{path}: not a whole parquet file: {error}') from error
  if not table.num_rows:
    raise ValueError(f'{path}: no records in this file.')
  for row, fields in enumerate(table.to_pylist(), start=1):
    yield Record(fields, f'{path}, row {row}')


def parse(data: bytes, where: str) -> Record:
  """Returns the record of one JSON text."""
  return _record(load(data, where), where)


def load(data: bytes | str, where: str) -> Any:
  """Returns what a JSON text holds."""
  try:
    with long_integers():
      return json.loads(data)
  except ValueError as error:  # Also what is not UTF-8.
    raise ValueError(f'{where}: not JSON: {error}') from error


def _record(fields: Any, where: str) -> Record:
  if not isinstance(fields, dict):
    raise ValueError(f'{where}: must be a JSON object, got {fields!r:.60}.')
  return Record(fields, where)


def prompt_text(name: str) -> str:
  """Returns a text of `rest/tasks/sets/prompts`."""
  path = resources.files('rest.tasks').joinpath(f'sets/prompts/{name}')
  return path.read_text('utf-8')


@contextlib.contextmanager
def long_integers() -> Iterator[None]:
  """Lifts Python's limit on digits: some tests have integers beyond it."""
  limit = sys.get_int_max_str_digits()
  sys.set_int_max_str_digits(0)
  try:
    yield
  finally:
    sys.set_int_max_str_digits(limit)
