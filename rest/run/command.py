"""How commands end where their input is wrong: in one line, with status 2."""

import contextlib
import pathlib
import sys
from collections.abc import Iterator
from typing import NoReturn

from rest.types import Halted


@contextlib.contextmanager
def refusing() -> Iterator[None]:
  """Ends in one line and status 2 where something is wrong with the input."""
  try:
    yield
  except (ValueError, OSError, Halted) as error:
    refuse(str(error))
  except RuntimeError as error:  # JAX_PLATFORMS names what is not here.
    if 'Unable to initialize backend' not in str(error):
      raise
    refuse(f'JAX found no device: {str(error).splitlines()[0]}')


def check_out(out: str | None) -> None:
  """Refuses a file to write that could not be written, before any work.

  Raises:
    ValueError: It is a folder, or stands below what is none.
  """
  if out is None or '://' in out:
    return
  path = pathlib.Path(out)
  if path.is_dir():
    raise ValueError(f'{out} is a folder: name a file to write.')
  for parent in path.parents:
    if parent.exists() and not parent.is_dir():
      raise ValueError(f'{out} cannot be written: {parent} is no folder.')


def refuse(message: str) -> NoReturn:
  print(f'error: {message}', file=sys.stderr)
  sys.exit(2)
