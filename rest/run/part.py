"""The bytes of a part file: a problem's graded samples, a line each, packed.

gzip, so that `zcat part-000000.jsonl.gz` shows them to a person, and pandas
reads them: samples of one problem resemble each other, and take a fifth of
what their lines do. Each line tells its own checksum and how many there are, so
that what is damaged is known for it.
"""

import json
import zlib
from collections.abc import Sequence
from typing import Any

from etils import epath

from rest.types import Completion, Graded, Verdict

_CHECK = b', "check": "'
_LEVEL = 4  # Of zlib; 6 takes twice the time for 7 % fewer bytes.
_GZIP = 31  # What zlib calls that format.


class Damaged(ValueError):
  """A file does not say what was written into it; names it, and how."""


def pack(rows: Sequence[Graded]) -> bytes:
  """Returns what a part file holds: all samples of a problem, in order."""
  lines = ''.join(to_line(row, len(rows)) for row in rows)
  return zlib.compress(lines.encode(), _LEVEL, _GZIP)


def unpack(
  data: bytes, path: epath.PathLike, problems: int = 1
) -> list[list[Graded]]:
  """Returns the samples in a part file, by problem.

  Args:
    data: All of it: what `pack` has returned for each problem, end to end.
    path: Of the file; of older runs, it ends in .jsonl, and is not packed.
    problems: How many it holds.

  Raises:
    Damaged: It is not as it was written; numbers the line.
  """
  if not str(path).endswith('.gz'):
    return [_from_lines(data, path)]
  found = []
  for _ in range(problems):
    lines, data = _unzip(data, path)
    found.append(_from_lines(lines, path))
  if data:
    raise Damaged(f'{path} does not end where its samples end.')
  return found


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


def check_lines(data: bytes, path: epath.PathLike) -> list[str]:
  """Returns the lines of a part; they say what was written, all of it.

  Lines of older runs have no checksum: of them, only that they end is known.

  Args:
    data: The lines.
    path: Where they are from.

  Raises:
    Damaged: They do not; numbers the line.
  """
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


def _from_lines(data: bytes, path: epath.PathLike) -> list[Graded]:
  rows = []
  for number, line in enumerate(check_lines(data, path), start=1):
    try:
      rows.append(from_line(line))
    except Damaged as error:
      raise Damaged(f'{path}, line {number}: {error}.') from error
  return rows


def _unzip(data: bytes, path: epath.PathLike) -> tuple[bytes, bytes]:
  """Returns the lines of the first problem, and what is behind it."""
  file = zlib.decompressobj(_GZIP)
  try:
    lines = file.decompress(data)
  except zlib.error as error:
    raise Damaged(f'{path} is damaged: {error}.') from error
  if not file.eof:
    raise Damaged(f'{path} ends in the middle of its samples.')
  return lines, file.unused_data


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
