"""A working directory belongs to one process at a time."""

import fcntl
import os
import socket
from typing import TextIO

from etils import epath


class InUse(ValueError):
  """Another live process holds a working directory."""


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
      raise InUse(
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
