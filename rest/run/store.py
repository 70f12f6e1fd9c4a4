"""Samples and verdicts on disk, in files that are whole or absent.

A problem's graded samples stand together in one part file (`part.py`), which
appears only when whole. What is missing after a kill is what has no part file;
and what is damaged is what is missing: a file that does not say what was
written is put aside. Paths may be local or gs:// (etils.epath).
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import re
import shutil
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from etils import epath

from rest.run import objects
from rest.run.part import Damaged, pack, unpack
from rest.types import Graded, Problem

_AT_ONCE = 1 << 24  # Bytes of a file that are in memory, on their way to gs://.


def write_whole(
  path: epath.PathLike, content: str | bytes | Iterable[str]
) -> None:
  """Writes a file that either exists whole or not at all.

  Locally: a temporary file beside it, of each thread its own, synced, then
  renamed. On gs:// an object appears only when its upload is complete.

  Args:
    path: Of the file.
    content: Of it; pieces are taken as they are written.
  """
  is_whole = isinstance(content, str | bytes)
  pieces = (
    piece.encode() if isinstance(piece, str) else piece
    for piece in ([content] if is_whole else content)
  )
  path = epath.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  if '://' in str(path):
    _upload(path, pieces)
    return
  partial = f'{path}.partial-{threading.get_native_id()}'
  with open(partial, 'wb') as file:
    try:
      file.writelines(pieces)
      file.flush()
      os.fsync(file.fileno())
    except BaseException:  # As where a piece cannot be made.
      os.unlink(partial)
      raise
  if path.is_dir():
    put_aside(path)  # A file would not take its place.
  os.replace(partial, path)  # A file that exists is whole.


def _upload(path: epath.Path, pieces: Iterator[bytes]) -> None:
  """Writes an object, once all of it is known: closing its file ends it."""
  with tempfile.TemporaryFile() as file:
    file.writelines(pieces)
    size = file.tell()
    file.seek(0)
    if size <= _AT_ONCE:
      objects.write(path, file.read())
      return
    with path.open('wb') as target:
      shutil.copyfileobj(file, target, _AT_ONCE)


def write_json(path: epath.PathLike, value: Any) -> None:
  """Writes a value as indented JSON, whole."""
  write_whole(path, json.dumps(value, indent=2, sort_keys=True) + '\n')


def read_json(path: epath.PathLike) -> Any:
  """Reads what `write_json` wrote, or None where there is no such file.

  Raises:
    Damaged: It is not JSON.
  """
  path = epath.Path(path)
  if not path.exists():
    return None
  try:
    return json.loads(path.read_text())
  except (ValueError, IsADirectoryError) as error:
    raise Damaged(f'{path} is damaged: it is not JSON ({error}).') from error


# Fields of a config that older runs have under other names.
_RENAMED = {
  f'sampling.{name}': f'estep.{name}'
  for name in ('temperature', 'top_k', 'top_p')
}


def find_record(workdir: epath.PathLike) -> dict[str, Any] | None:
  """Reads run.json, its fields under the names of today; None if not there."""
  record = read_json(epath.Path(workdir) / 'run.json')
  if isinstance(record, dict) and isinstance(record.get('config'), dict):
    fields = record['config'].items()
    record['config'] = {_RENAMED.get(k, k): v for k, v in fields}
  return record


def read_seconds(path: epath.PathLike) -> dict[str, float]:
  """Reads seconds.json; what is damaged is left out: people alone read it."""
  try:
    known = read_json(path)
  except Damaged:
    return {}
  known = known if isinstance(known, dict) else {}
  return {n: s for n, s in known.items() if isinstance(s, float | int)}


def read_record(workdir: epath.PathLike) -> dict[str, Any]:
  """Reads run.json: what a run is, and was made with.

  Raises:
    ValueError: The directory is not a run's.
    Damaged: run.json is not what a run writes.
  """
  path = epath.Path(workdir) / 'run.json'
  try:
    record = find_record(workdir)
  except Damaged as error:
    raise Damaged(f'{error} {ADVICE}') from error
  if record is None:
    raise ValueError(f'{workdir} has no run.json: it is not a run.')
  names = {'config', 'data', 'base', 'leaks'}
  missing = names - set(record if isinstance(record, dict) else ())
  if missing:
    lacks = ', '.join(sorted(missing))
    raise Damaged(f'{path} is damaged: it lacks {lacks}. {ADVICE}')
  return record


def clear(workdir: epath.PathLike) -> None:
  """Removes what a kill has left in a run's folder, and nobody will read.

  Half-written files, and checkpoints of an M-step that has come to its end,
  damaged ones too: at 7B, 170 GB each.
  """
  workdir = epath.Path(workdir)
  if '://' in str(workdir):
    partial = []  # An object store has none.
  else:
    partial = [*pathlib.Path(workdir).rglob('*.partial-*')]
  for path in partial:
    path.unlink(missing_ok=True)
  for folder in workdir.glob('iteration_*'):
    if (folder / 'm_step.json').exists():
      for checkpoints in folder.glob('training*'):
        checkpoints.rmtree()


def section(record: dict[str, Any], name: str) -> dict[str, Any]:
  """Returns one section of a record's config, as its dataclass wants it."""
  return {
    field.removeprefix(f'{name}.'): (
      tuple(value) if isinstance(value, list) else value
    )
    for field, value in record['config'].items()
    if field.startswith(f'{name}.')
  }


def put_aside(path: epath.PathLike) -> str:
  """Takes what is damaged out of the way; returns its new name.

  Nothing is lost: a person may look at it, and no reader takes it for whole.
  """
  path = epath.Path(path)
  number = 1
  while (aside := path.parent / f'{path.name}.damaged-{number}').exists():
    number += 1
  path.rename(aside)
  return aside.name


# On run.json, which nothing else tells.
ADVICE = (
  'It cannot be made again: put a copy of it back, or start in another '
  '--workdir.'
)
_PART = re.compile(r'part-(\d+(?:-\d+)*)\.jsonl(\.gz)?')
_READERS = 16  # Files that are read at once: on gs:// each takes 50 ms.


class Parts:
  """The graded samples of a list of problems, in part files.

  A file's name has the indices of its problems: one, but on gs:// those that
  were settled within seconds, since there each file is a request. Those of
  older runs are not packed: they are read, not written.
  """

  def __init__(self, folder: epath.PathLike):
    self.folder = epath.Path(folder)

  def done(self) -> set[int]:
    """Returns the indices of the problems whose samples are on disk."""
    return set(self._paths())

  def read_whole(
    self, problem_ids: Sequence[str], say: Callable[[str], None]
  ) -> Iterator[tuple[int, list[Graded]]]:
    """Reads what is on disk, and takes damage for absence.

    Args:
      problem_ids: Of all problems; a file of another than its own is damaged.
      say: Gets a line about each damaged file, which is put aside.

    Returns:
      Each problem's index, and its samples; a file after another, in order.
    """
    known = self._paths()
    paths = list(dict.fromkeys(known[index] for index in sorted(known)))
    for path, data in zip(paths, _read_ahead(paths), strict=True):
      indices = _indices(path)
      try:
        groups = unpack(data.result(), path, len(indices))
        for index, rows in zip(indices, groups, strict=True):
          if rows[0].problem_id != problem_ids[index]:
            raise Damaged(f'{path} holds samples of another problem.')
      except (Damaged, OSError, IndexError) as error:
        say(f'{error} It is {put_aside(path)} now.')
      else:
        yield from zip(indices, groups, strict=True)

  def mend(self, problem_ids: Sequence[str]) -> list[str]:
    """Puts damaged files aside, so that they are missing; returns why, each."""
    reasons: list[str] = []
    deque(self.read_whole(problem_ids, reasons.append), maxlen=0)
    return reasons

  def write(self, index: int, rows: list[Graded]) -> None:
    """Writes all samples of problem `index`, in order of sample."""
    self.write_together({index: rows})

  def write_together(self, groups: Mapping[int, list[Graded]]) -> None:
    """Writes all samples of some problems, by index, to one file."""
    data = b''.join(
      pack(sorted(groups[index], key=lambda row: row.sample))
      for index in sorted(groups)
    )
    write_whole(self._path(*sorted(groups)), data)

  def read(self, index: int) -> list[Graded]:
    """Reads the samples of problem `index`."""
    return next(self.read_each([index]))

  def read_each(self, indices: Sequence[int]) -> Iterator[list[Graded]]:
    """Reads the samples of some problems, a problem at a time, in that order.

    Invariant: a file is read when the first of its problems is wanted, once;
    the others wait in `held`. They are of neighbours, so that these are few.

    Raises:
      Damaged, OSError: With the first that cannot be read.
    """
    known = self._paths()
    wanted = (known.get(index, self._path(index)) for index in indices)
    paths = list(dict.fromkeys(wanted))
    files = zip(paths, _read_ahead(paths), strict=True)
    held: dict[int, list[Graded]] = {}
    for index in indices:
      if index not in held:
        path, data = next(files)
        of = _indices(path)
        groups = unpack(data.result(), path, len(of))
        held.update(zip(of, groups, strict=True))
      yield held.pop(index)

  def read_done(self) -> Iterator[list[Graded]]:
    """Reads the samples on disk, a problem at a time, in order of index."""
    return self.read_each(sorted(self.done()))

  def read_all(self, count: int) -> Iterator[list[Graded]]:
    """Reads the samples of problems 0 to count - 1, a problem at a time."""
    return self.read_each(range(count))

  def _path(self, *indices: int) -> epath.Path:
    name = '-'.join(f'{index:06d}' for index in indices)
    return self.folder / f'part-{name}.jsonl.gz'

  def _paths(self) -> dict[int, epath.Path]:
    """Returns the files there are, by the index of each problem in them."""
    if '://' in str(self.folder):
      names = objects.names(self.folder)
    elif self.folder.exists():
      names = os.listdir(self.folder)
    else:
      names = []
    paths = [self.folder / name for name in names if _PART.fullmatch(name)]
    return {index: path for path in paths for index in _indices(path)}


def _indices(path: epath.Path) -> list[int]:
  """Returns the indices of the problems in a part file."""
  found = _PART.fullmatch(path.name)
  assert found
  return [int(index) for index in found[1].split('-')]


def _read(path: epath.Path) -> bytes:
  return objects.read(path) if '://' in str(path) else path.read_bytes()


def _read_ahead(paths: Iterable[epath.Path]) -> Iterator[Future[bytes]]:
  """Yields what is in files, in order, while the next ones are being read."""
  readers = ThreadPoolExecutor(_READERS)
  waiting: deque[Future[bytes]] = deque()
  try:
    for path in paths:
      waiting.append(readers.submit(_read, path))
      if len(waiting) == _READERS:
        yield waiting.popleft()
    yield from waiting
  finally:
    # Where a caller has given up, the garbage collector may end this in any
    # thread, a reader's too, which could not wait for itself.
    readers.shutdown(wait=False, cancel_futures=True)


def write_problems(
  path: epath.PathLike, splits: Mapping[str, Iterable[Problem]]
) -> None:
  """Writes the problems of a run for its readers; the tests are left out."""
  lines = []
  for split, problems in splits.items():
    for problem in problems:
      fields = {'split': split, **dataclasses.asdict(problem)}
      del fields['tests']
      lines.append(json.dumps(fields, ensure_ascii=False) + '\n')
  write_whole(path, ''.join(lines))


def read_problems(path: epath.PathLike) -> dict[str, list[Problem]]:
  """Reads the problems of a run, in order, by split; {} where none are."""
  path = epath.Path(path)
  splits: dict[str, list[Problem]] = {}
  for line in path.read_text().split('\n') if path.exists() else ():
    if line:
      fields = json.loads(line)
      splits.setdefault(fields.pop('split'), []).append(Problem(**fields))
  return splits


def hash_problems(problems: Iterable[Problem]) -> str:
  """Returns a digest of everything in a list of problems."""
  digest = hashlib.sha256()
  for problem in problems:
    fields = dataclasses.asdict(problem)
    digest.update(json.dumps(fields, sort_keys=True).encode())
  return digest.hexdigest()[:16]


def hash_files(folder: epath.PathLike) -> str:
  """Returns a digest of a model directory.

  Names, sizes, and the first and last MiB of each file: enough to notice
  another model without reading a hundred gigabytes.
  """
  digest = hashlib.sha256()
  for path in sorted(epath.Path(folder).iterdir(), key=lambda path: path.name):
    if path.is_dir() or path.suffix == '.md':
      continue
    size = path.stat().length
    digest.update(f'{path.name} {size}\n'.encode())
    with path.open('rb') as file:
      digest.update(file.read(1 << 20))
      file.seek(max(0, size - (1 << 20)))
      digest.update(file.read(1 << 20))
  return digest.hexdigest()[:16]
