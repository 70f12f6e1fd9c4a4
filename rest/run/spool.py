"""What is too much for memory, and wanted in another order than it comes."""

import contextlib
import os
import pickle
import tempfile
from collections.abc import Iterator
from typing import IO, Any

from etils import epath


class Spool:
  """Holds values in a file that nobody else sees."""

  def __init__(self, file: IO[bytes]):
    self._file = file

  def put(self, value: Any) -> int:
    """Takes a value; returns the place to get it from."""
    place = self._file.seek(0, os.SEEK_END)
    pickle.dump(value, self._file, pickle.HIGHEST_PROTOCOL)
    return place

  def get(self, place: int) -> Any:
    """Returns the value that was put there."""
    self._file.seek(place)
    return pickle.load(self._file)


@contextlib.contextmanager
def spool(folder: epath.Path) -> Iterator[Spool]:
  """Yields an empty one, on the disk of a folder; for gs://, of TMPDIR."""
  folder.mkdir(parents=True, exist_ok=True)
  disk = None if '://' in str(folder) else folder
  with tempfile.TemporaryFile(dir=disk) as file:
    yield Spool(file)
