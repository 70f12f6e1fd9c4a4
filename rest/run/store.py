"""Samples and verdicts on disk, in files that are whole or absent.

A problem's graded samples stand together in one part file, which appears only
when whole. What is missing after a kill is what has no part file; and what is
damaged is what is missing: each line tells its own checksum and how many there
are, and a file that does not say what was written is put aside. Paths may be
local or gs:// (etils.epath).
"""

import dataclasses
import fcntl
import hashlib
import json
import os
import pathlib
import re
import socket
import threading
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TextIO

from etils import epath

from rest.types import Completion, Graded, Problem, Verdict


def write_whole(path: epath.PathLike, content: str | bytes) -> None:
  """Writes a file that either exists whole or not at all.

  Locally: a temporary file beside it, of each thread its own, synced, then
  renamed. On gs:// an object appears only when its upload is complete.
  """
  data = content.encode() if isinstance(content, str) else content
  path = epath.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  if '://' in str(path):
    path.write_bytes(data)
    return
  partial = f'{path}.partial-{threading.get_native_id()}'
  with open(partial, 'wb') as file:
    file.write(data)
    file.flush()
    os.fsync(file.fileno())
  if path.is_dir():
    put_aside(path)  # A file would not take its place.
  os.replace(partial, path)  # A file that exists is whole.


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
_PART = re.compile(r'part-(\d+)\.jsonl')
_CHECK = b', "check": "'


class Damaged(ValueError):
  """A file does not say what was written into it; names it, and how."""


class Parts:
  """The graded samples of a list of problems: one part file a problem."""

  def __init__(self, folder: epath.PathLike):
    self.folder = epath.Path(folder)

  def done(self) -> set[int]:
    """Returns the indices of the problems whose samples are on disk."""
    if not self.folder.exists():
      return set()
    names = (path.name for path in self.folder.iterdir())
    return {int(found[1]) for name in names if (found := _PART.fullmatch(name))}

  def mend(self, problem_ids: Sequence[str]) -> list[str]:
    """Puts damaged files aside, so that they are missing; returns why, each.

    Args:
      problem_ids: Of all problems; a file of another than its own is damaged.
    """
    reasons = []
    for index in sorted(self.done()):
      path = self.folder / f'part-{index:06d}.jsonl'
      try:
        if next(read_lines(path)).problem_id != problem_ids[index]:
          raise Damaged(f'{path} holds samples of another problem.')
      except (Damaged, OSError, IndexError) as error:
        reasons.append(f'{error} It is {put_aside(path)} now.')
    return reasons

  def write(self, index: int, rows: list[Graded]) -> None:
    """Writes all samples of problem `index`, in order of sample."""
    rows = sorted(rows, key=lambda row: row.sample)
    lines = ''.join(to_line(row, len(rows)) for row in rows)
    write_whole(self.folder / f'part-{index:06d}.jsonl', lines)

  def read(self, index: int) -> list[Graded]:
    """Reads the samples of problem `index`."""
    path = self.folder / f'part-{index:06d}.jsonl'
    return list(read_lines(path))

  def places(self) -> dict[str, int]:
    """Returns the index of each problem whose samples are on disk, by id."""
    return {self.read(i)[0].problem_id: i for i in sorted(self.done())}

  def read_done(self) -> Iterator[list[Graded]]:
    """Reads the samples on disk, a problem at a time, in order of index."""
    for index in sorted(self.done()):
      yield self.read(index)

  def read_all(self, count: int) -> Iterator[list[Graded]]:
    """Reads the samples of problems 0 to count - 1, a problem at a time."""
    for index in range(count):
      yield self.read(index)


def to_line(row: Graded, of: int = 1) -> str:
  """Returns one line of a part file; what a person looks for comes first.

  Args:
    row: A sample.
    of: Samples in the file.
  """
  completion, verdict = row.completion, row.verdict
  fields = {
    'problem': row.problem_id,
    'sample': row.sample,
    'reward': verdict.reward,
    'reason': verdict.reason,
    'text': completion.text,
    'ended': completion.ended,
    'verifier': verdict.verifier,
    'prompt': row.prompt,
    'tokens': list(completion.tokens),
    'of': of,
  }
  text = json.dumps(fields, ensure_ascii=False)[:-1]
  return f'{text}{_CHECK.decode()}{zlib.crc32(text.encode()):08x}"}}\n'


def from_line(line: str) -> Graded:
  """Reads one line of a part file.

  Raises:
    Damaged: It is not one.
  """
  try:
    return _from_fields(json.loads(line))
  except (KeyError, TypeError, json.JSONDecodeError) as error:
    raise Damaged(f'not a graded sample ({error!r})') from error


def _from_fields(fields: dict[str, Any]) -> Graded:
  if 'finished' in fields:  # As runs wrote it before they told how.
    fields['ended'] = 'token' if fields['finished'] else 'limit'
  return Graded(
    problem_id=fields['problem'],
    sample=fields['sample'],
    prompt=fields['prompt'],
    completion=Completion(
      text=fields['text'],
      tokens=tuple(fields['tokens']),
      logprobs=(),  # Nobody reads them; older files have some.
      ended=fields['ended'],
    ),
    verdict=Verdict(fields['reward'], fields['reason'], fields['verifier']),
  )


def read_lines(path: epath.PathLike) -> Iterator[Graded]:
  """Reads a part file.

  Raises:
    Damaged: It is not as it was written; numbers the line.
  """
  for number, line in enumerate(check_lines(path), start=1):
    try:
      yield from_line(line)
    except Damaged as error:
      raise Damaged(f'{path}, line {number}: {error}.') from error


def check_lines(path: epath.PathLike) -> list[str]:
  """Returns the lines of a part file; they say what was written, all of it.

  Lines of older runs have no checksum: of them, only that they end is known.

  Raises:
    Damaged: They do not; numbers the line.
  """
  data = epath.Path(path).read_bytes()
  lines = data.split(b'\n')
  if lines.pop() or not lines:
    raise Damaged(f'{path} ends in the middle of line {len(lines) + 1}.')
  of = f', "of": {len(lines)}'.encode()
  has_checks = any(_CHECK in line for line in lines)
  for number, line in enumerate(lines):
    text, _, check = line.rpartition(_CHECK)
    is_next = f', "sample": {number}, '.encode() in line
    is_whole = check == f'{zlib.crc32(text):08x}"}}'.encode()
    if has_checks and not (is_next and is_whole and text.endswith(of)):
      raise Damaged(f'{path}, line {number + 1}: not what was written.')
  try:
    return data.decode().split('\n')[:-1]
  except UnicodeDecodeError as error:
    raise Damaged(f'{path} is no text.') from error


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


class Lock:
  """Holds a local working directory for this process, as a context manager.

  The kernel releases it when the process dies, however it dies. Object stores
  have no such lock: there, nothing is held.
  """

  def __init__(self, workdir: epath.PathLike):
    self._path = None if '://' in str(workdir) else f'{workdir}/lock'
    self._file: TextIO | None = None

  def __enter__(self) -> 'Lock':
    if self._path is None:
      return self
    os.makedirs(os.path.dirname(self._path), exist_ok=True)
    self._file = open(self._path, 'a+', encoding='utf-8')
    try:
      fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      self._file.seek(0)
      holder = self._file.read().strip() or 'unknown'
      self._file.close()
      raise ValueError(
        f'workdir {os.path.dirname(self._path)} is in use by a live process '
        f'({holder}). Stop it, or choose another --workdir.'
      ) from None
    self._file.truncate(0)
    self._file.write(f'process {os.getpid()} on {socket.gethostname()}')
    self._file.flush()
    return self

  def __exit__(self, *unused: object) -> None:
    if self._file is not None:
      self._file.close()
