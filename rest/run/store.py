"""Samples and verdicts on disk, in files that are whole or absent.

A problem's graded samples stand together in one part file, which appears only
when whole. What is missing after a kill is what has no part file. Paths may be
local or gs:// (etils.epath).
"""

import dataclasses
import fcntl
import hashlib
import json
import os
import socket
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TextIO

from etils import epath

from rest.types import Completion, Graded, Problem, Verdict


def write_whole(path: epath.PathLike, content: str | bytes) -> None:
  """Writes a file that either exists whole or not at all.

  Locally: a temporary file beside it, synced, then renamed. On gs:// an object
  appears only when its upload is complete.
  """
  data = content.encode() if isinstance(content, str) else content
  path = epath.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  if '://' in str(path):
    path.write_bytes(data)
    return
  partial = f'{path}.partial-{os.getpid()}'
  with open(partial, 'wb') as file:
    file.write(data)
    file.flush()
    os.fsync(file.fileno())
  os.replace(partial, path)  # A file that exists is whole.


def write_json(path: epath.PathLike, value: Any) -> None:
  """Writes a value as indented JSON, whole."""
  write_whole(path, json.dumps(value, indent=2, sort_keys=True) + '\n')


def read_json(path: epath.PathLike) -> Any:
  """Reads what `write_json` wrote, or None where there is no such file."""
  path = epath.Path(path)
  return json.loads(path.read_text()) if path.exists() else None


def read_record(workdir: epath.PathLike) -> dict[str, Any]:
  """Reads run.json: what a run is, and was made with.

  Raises:
    ValueError: The directory is not a run's.
  """
  record = read_json(epath.Path(workdir) / 'run.json')
  if record is None:
    raise ValueError(f'{workdir} has no run.json: it is not a run.')
  return record


def section(record: dict[str, Any], name: str) -> dict[str, Any]:
  """Returns one section of a record's config, as its dataclass wants it."""
  return {
    field.removeprefix(f'{name}.'): (
      tuple(value) if isinstance(value, list) else value
    )
    for field, value in record['config'].items()
    if field.startswith(f'{name}.')
  }


class Parts:
  """The graded samples of a list of problems: one part file a problem."""

  def __init__(self, folder: epath.PathLike):
    self._folder = epath.Path(folder)

  def done(self) -> set[int]:
    """Returns the indices of the problems whose samples are on disk."""
    if not self._folder.exists():
      return set()
    names = (path.name for path in self._folder.iterdir())
    return {
      int(name[len('part-') : -len('.jsonl')])
      for name in names
      if name.startswith('part-') and name.endswith('.jsonl')
    }

  def write(self, index: int, rows: list[Graded]) -> None:
    """Writes all samples of problem `index`, in order of sample."""
    rows = sorted(rows, key=lambda row: row.sample)
    lines = ''.join(to_line(row) for row in rows)
    write_whole(self._folder / f'part-{index:06d}.jsonl', lines)

  def read(self, index: int) -> list[Graded]:
    """Reads the samples of problem `index`."""
    path = self._folder / f'part-{index:06d}.jsonl'
    return list(read_lines(path))

  def places(self) -> dict[str, int]:
    """Returns the index of each problem whose samples are on disk, by id."""
    return {self.read(i)[0].problem_id: i for i in sorted(self.done())}

  def read_all(self, count: int) -> Iterator[list[Graded]]:
    """Reads the samples of problems 0 to count - 1, a problem at a time."""
    for index in range(count):
      yield self.read(index)


def to_line(row: Graded) -> str:
  """Returns one line of a part file; what a person looks for comes first."""
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
    'logprobs': [round(value, 4) for value in completion.logprobs],
  }
  return json.dumps(fields, ensure_ascii=False) + '\n'


def from_line(line: str) -> Graded:
  """Reads one line of a part file."""
  fields = json.loads(line)
  if 'finished' in fields:  # As runs wrote it before they told how.
    fields['ended'] = 'token' if fields['finished'] else 'limit'
  return Graded(
    problem_id=fields['problem'],
    sample=fields['sample'],
    prompt=fields['prompt'],
    completion=Completion(
      text=fields['text'],
      tokens=tuple(fields['tokens']),
      logprobs=tuple(fields['logprobs']),
      ended=fields['ended'],
    ),
    verdict=Verdict(fields['reward'], fields['reason'], fields['verifier']),
  )


def read_lines(path: epath.PathLike) -> Iterator[Graded]:
  """Reads a part file; a malformed line is an error that numbers it."""
  for number, line in enumerate(
    epath.Path(path).read_text().split('\n'), start=1
  ):
    if not line:
      continue
    try:
      yield from_line(line)
    except (KeyError, TypeError, json.JSONDecodeError) as error:
      raise ValueError(
        f'{path}, line {number}: not a graded sample ({error!r}).'
      ) from error


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
