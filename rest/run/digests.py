"""What the files of a folder hold, so that damage is seen when they are read.

`digests.json` beside them has a digest of each. A file that has one there and
holds something else is damaged, and taken for missing; one that has none is
taken as it is: it was written by an older version, or just before a kill.
"""

import hashlib
from collections.abc import Callable

from etils import epath

from rest.run import store

NAME = 'digests.json'


def note(path: epath.PathLike, digest: str | None = None) -> None:
  """Notes what a file holds, or what someone else made out that it does.

  Args:
    path: A file, or a folder whose digest is given.
    digest: None is that of the file's bytes.
  """
  path = epath.Path(path)
  known = _known(path)
  known[path.name] = digest or _digest(path)
  store.write_json(path.parent / NAME, known)


def noted(path: epath.PathLike) -> str | None:
  """Returns what was noted of a file or folder; None if nothing was."""
  path = epath.Path(path)
  return _known(path).get(path.name)


def is_there(path: epath.PathLike, say: Callable[[str], None]) -> bool:
  """Whether a file is there and as it was written.

  One that is damaged is put aside, so that it is missing, and `say` gets a line
  about it.
  """
  path = epath.Path(path)
  if not path.exists():
    return False
  if is_whole(path):
    return True
  say(
    f'{path} is damaged: it is not what was written. It is '
    f'{store.put_aside(path)} now, and is made again.'
  )
  return False


def is_whole(path: epath.PathLike) -> bool:
  """Whether a file is there and as it was written; changes nothing."""
  path = epath.Path(path)
  return path.is_file() and noted(path) in (None, _digest(path))


def check(path: epath.PathLike) -> None:
  """Refuses a file that is there, but not as it was written.

  Raises:
    Damaged: Names it, and what to do.
  """
  path = epath.Path(path)
  if path.exists() and not is_whole(path):
    raise store.Damaged(
      f'{path} is damaged: it is not what was written. Start the run again: '
      'it makes the file again.'
    )


def are_whole(folder: epath.Path) -> bool:
  """Whether all files are there that were noted of an iteration.

  Its weights are not looked at: they are known when they are read.
  """
  return all(
    is_whole(listing.parent / name)
    for listing in (folder / NAME, folder / 'suites' / NAME)
    for name in _known(listing)
    if name != 'model'
  )


def _known(path: epath.Path) -> dict[str, str]:
  """Returns all digests of a folder; none where they are damaged themselves."""
  try:
    known = store.read_json(path.parent / NAME)
  except (ValueError, OSError):
    known = None
  return known if isinstance(known, dict) else {}


def _digest(path: epath.Path) -> str:
  digest = hashlib.sha256()
  with path.open('rb') as file:
    while block := file.read(1 << 20):
      digest.update(block)
  return digest.hexdigest()[:16]
