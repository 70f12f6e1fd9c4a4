"""What a file of the user's own defines: a problem set, or a reward function.

It is named as in 'path/to/file.py:Name'. The file is trusted as a config is:
it runs in this process, and in every worker that needs it.
"""

import contextlib
import functools
import hashlib
import re
import sys
import traceback
import types
from collections.abc import Iterator
from typing import Any

from etils import epath

_NAME = re.compile(r'(?P<path>.+\.py):(?P<name>[A-Za-z_]\w*)')


def is_named(text: str) -> bool:
  """Whether a text names what a file defines, rather than something of ours."""
  return _NAME.fullmatch(text) is not None


def load(text: str, field: str) -> Any:
  """Returns what 'path/to/file.py:Name' names.

  Args:
    text: See there.
    field: Of the config, for errors.

  Raises:
    ValueError: The file is not there, fails (names the line), or does not
      define the name.
  """
  path, name = _split(text)
  if not epath.Path(path).is_file():
    raise ValueError(f'{field}={text!r}: there is no file {path}.')
  with naming_lines(path):
    module = _module(path, epath.Path(path).read_bytes())
  if name not in vars(module):
    raise ValueError(f'{field}={text!r}: {path} defines no {name}.')
  return vars(module)[name]


def digest(text: str) -> str:
  """Returns eight hexadecimal digits of the contents of a named file."""
  path, _ = _split(text)
  return hashlib.sha256(epath.Path(path).read_bytes()).hexdigest()[:8]


@contextlib.contextmanager
def naming_lines(path: str) -> Iterator[None]:
  """Raises ValueError with the line of a file for whatever it raises."""
  try:
    yield
  except Exception as error:  # Whatever a user's file does.
    where = line_of(error, path)
    if where == path and isinstance(error, ValueError):
      raise  # Ours, about a field.
    first = str(error).strip().split('\n')[0]
    raise ValueError(f'{where}: {type(error).__name__}: {first}') from error


def line_of(error: Exception, path: str) -> str:
  """Returns the path, with the line that an error came to if it did."""
  if isinstance(error, SyntaxError) and error.filename == path:
    return f'{path}, line {error.lineno}'
  frames = traceback.extract_tb(error.__traceback__)
  lines = [frame.lineno for frame in frames if frame.filename == path]
  return f'{path}, line {lines[-1]}' if lines else path


@functools.lru_cache(16)  # A class and a function of one file share it.
def _module(path: str, source: bytes) -> types.ModuleType:
  module = types.ModuleType(f'file {path}')
  module.__file__ = path
  sys.modules[module.__name__] = module  # Dataclasses look there.
  exec(compile(source, path, 'exec'), vars(module))
  return module


def _split(text: str) -> tuple[str, str]:
  found = _NAME.fullmatch(text)
  assert found  # `is_named` said so.
  return found['path'], found['name']
