"""The names of MATH's problems, for copies that have lost them.

A problem was a file of the archive, such as train/algebra/2463.json. Copies as
tables hold only what the file said. `math_ids.gz` lists all 12,500 names, each
with a digest of its problem's text, so that a copy has the ids, the order, the
validation split and the hash of the original, and MATH500 can be held out.
"""

import gzip
import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable
from importlib import resources

from rest.tasks.files import Record

_FILE = 'math_ids.gz'


def named(records: Iterable[Record], split: str) -> list[Record]:
  """Returns records with their names, in the order of the archive.

  What is not of the archive gets a name of its text, and comes last.

  Args:
    records: With `problem` and `type`.
    split: Where they stand; some copies move problems between splits.
  """
  known = _known()
  found, others = [], []
  for record in records:
    names = known[digest(record.text('problem'))]
    # A problem that stands in both splits, or twice in one: its own, in order.
    own = [name for name in names if name.startswith(split)]
    if name := next(iter(own or names), None):
      names.remove(name)
      found.append(_with_name(record, name))
    else:
      others.append(_with_name(record, _own_name(record, split)))
  return sorted(found, key=_place) + others


def digest(problem: str) -> str:
  """Returns 40 bits of a hash of a problem's text, without its spaces."""
  text = ''.join(problem.split())
  return hashlib.sha256(text.encode()).hexdigest()[:10]


def table(problems: Iterable[tuple[str, str]]) -> bytes:
  """Returns the file, for names and texts in the order of the archive."""
  lines = ''.join(f'{name} {digest(text)}\n' for name, text in problems)
  return gzip.compress(lines.encode(), mtime=0)


def _known() -> defaultdict[str, list[str]]:
  """Returns the names by digest; a few texts have two."""
  data = resources.files('rest.tasks').joinpath(_FILE).read_bytes()
  names = defaultdict(list)
  for line in gzip.decompress(data).decode().splitlines():
    name, key = line.split()
    names[key].append(name)
  return names


def _with_name(record: Record, name: str) -> Record:
  return Record({**record.fields, 'unique_id': name}, record.where)


def _own_name(record: Record, split: str) -> str:
  subject = record.text('type').lower().replace('&', 'and')
  subject = re.sub(r'\W+', '_', subject).strip('_')
  return f'{split}/{subject}/{digest(record.text("problem"))}'


def _place(record: Record) -> tuple[str, str, int]:
  split, subject, number = record.text('unique_id').split('/')
  return split, subject, int(number)
