"""The names of MATH's problems, for copies that have lost them.

A problem was a file of the archive, such as train/algebra/2463.json. Copies as
tables hold only what the file said. `math_ids.gz` lists all 12,500 names, each
with a digest of its problem, so that a copy has the ids, the order, the
validation split and the hash of the original, and MATH500 can be held out of
it. Four problems stand twice: there a digest of the solution tells which.
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
    records: With `problem`, `solution` and `type`.
    split: Where they stand; some copies move problems between splits.
  """
  known = _known()
  found, others = [], []
  for record in records:
    problem = digest(record.text('problem'))
    solution = digest(record.text('solution'))
    names = known[problem]
    name = max(
      names,
      key=lambda name: (names[name] == [solution], name.startswith(split)),
      default='',
    )
    if name:
      del names[name]
      found.append(_with_name(record, name))
    else:
      own = f'{split}/{_folder(record.text("type"))}/{problem}'
      others.append(_with_name(record, own))
  return sorted(found, key=_place) + others


def digest(text: str) -> str:
  """Returns 40 bits of a hash of a text without its spaces."""
  return hashlib.sha256(''.join(text.split()).encode()).hexdigest()[:10]


def _known() -> defaultdict[str, dict[str, list[str]]]:
  """Returns names, with the solution's digest if any, by the problem's."""
  data = resources.files('rest.tasks.sets').joinpath(_FILE).read_bytes()
  known: defaultdict[str, dict[str, list[str]]] = defaultdict(dict)
  for line in gzip.decompress(data).decode().splitlines():
    name, problem, *solution = line.split()
    known[problem][name] = solution
  return known


def _with_name(record: Record, name: str) -> Record:
  return Record({**record.fields, 'unique_id': name}, record.where)


def _folder(subject: str) -> str:
  """Returns what the archive calls 'Counting & Probability'."""
  return re.sub(r'\W+', '_', subject.lower().replace('&', 'and')).strip('_')


def _place(record: Record) -> tuple[str, str, int]:
  split, subject, number = record.text('unique_id').split('/')
  return split, subject, int(number)
