"""Makes a forked interpreter one that `python program.py` has started.

All of this runs in the process that the program can change at will. Nothing
here is trusted; it only has to be right for honest programs, who see what they
would see in a terminal: their file, their streams, and output that Python still
writes while it ends.

Stops: nothing, and need not: exit statuses and outputs only ever fail a program
or are compared elsewhere.
"""

import atexit
import builtins
import contextlib
import gc
import importlib.machinery
import io
import os
import signal
import sys
import threading
import types
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rest.verify.sandbox.jail import PROGRAM

MEMORY_STATUS = 77  # Exit status of a program that raised MemoryError.
SYNTAX_STATUS = 78  # Of a text that is no Python, which exits with 1 there.
# These may stand in a `try`.
_SUSPENDED = {
  types.GeneratorType,
  types.CoroutineType,
  types.AsyncGeneratorType,
}
_FLUSH_STATUS = 120  # Python's, where standard output cannot be written.


class _NotPythonError(Exception):
  """The text of a program cannot be compiled."""


def run_script(descriptors: list[int]) -> int:
  """Runs a program as `python program.py` would; returns its exit status.

  Args:
    descriptors: Of the program, its standard input and its standard output.
  """
  program, stdin, stdout = descriptors
  module = place(program, '__main__')
  os.dup2(stdin, 0)
  os.dup2(stdout, 1)
  os.closerange(program, stdout + 1)
  sys.stdin = sys.__stdin__ = _open_stream(0, 'r', '<stdin>')
  sys.stdout = sys.__stdout__ = _open_stream(1, 'w', '<stdout>')
  ours = [*_parts(sys.stdin), *_parts(sys.stdout)]
  status = exit_status(execute, module)
  del module  # The last of the program's objects die while it ends.
  status = _end(ours) or status
  if status == -signal.SIGINT:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGINT)
  return status


def place(program: int, name: str) -> types.ModuleType:
  """Writes a program to its file, and returns its module, still empty.

  Args:
    program: Descriptor of its text.
    name: Of the module.
  """
  path = f'{sys.path[0]}/{PROGRAM}'
  size = os.fstat(program).st_size
  file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644)
  os.sendfile(file, program, 0, size)
  os.close(file)
  sys.argv = [PROGRAM]
  sys.path.insert(1, os.getcwd())  # Mostly the same, elsewhere.
  module = types.ModuleType(name)
  sys.modules[name] = module
  loader = importlib.machinery.SourceFileLoader(name, path)
  vars(module).update(
    __file__=path,
    __loader__=loader,
    __cached__=None,
    __annotations__={},
    __builtins__=builtins,
  )
  return module


def execute(module: types.ModuleType, preamble: str = '') -> None:
  """Executes a module that `place` has made.

  Args:
    module: Of the program.
    preamble: Python whose names it finds as it finds builtin ones: they hide
      none of those, nor are they names of the module.

  Invariant: the program sees a module as fresh, a stack as deep and builtin
  names as many as under `python program.py`. Example: with the preamble `from
  math import *`, `pow(2, 3, 5)` stays Python's and `gcd` is found, while
  `'gcd' in globals()` is false.
  """
  if preamble:
    names: dict[str, object] = {}
    exec(preamble, names)
    for name in names.keys() - vars(builtins).keys() - {'__builtins__'}:
      setattr(builtins, name, names[name])
  path = str(module.__file__)
  with open(path, 'rb') as file:
    source = file.read()
  try:
    code = compile(source, path, 'exec', dont_inherit=True)
  except (SyntaxError, ValueError) as error:  # ValueError: NUL characters.
    raise _NotPythonError from error
  depth, frame = 0, sys._getframe()
  while frame := frame.f_back:
    depth += 1
  # As deep as in a fresh interpreter: this frame and `exec` count too.
  sys.setrecursionlimit(1002 + depth)
  exec(code, vars(module))


def exit_status(step: Callable[..., object], *arguments: object) -> int:
  """Runs a step of the program; returns what Python would exit with.

  That is negative where Python would end by a signal.
  """
  try:
    step(*arguments)
  except SystemExit as error:
    return _exit_code(error.code)
  except MemoryError:
    return MEMORY_STATUS
  except _NotPythonError:
    return SYNTAX_STATUS
  except BaseException as error:
    trace = error.__traceback__
    while trace and trace.tb_frame.f_code.co_filename == __file__:
      trace = trace.tb_next
    with contextlib.suppress(BaseException):
      sys.excepthook(type(error), error.with_traceback(trace), trace)
    return -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
  return 0


def _exit_code(code: object) -> int:
  if code is None:
    return 0
  if isinstance(code, int):
    return code & 255 if -(1 << 63) <= code < 1 << 63 else 255
  with contextlib.suppress(BaseException):
    print(code, file=sys.stderr)
  return 1


def _parts(text: Any) -> list[Any]:
  """Returns the streams that a text stream consists of."""
  return [text, text.buffer, text.buffer.raw]


def _open_stream(descriptor: int, mode: str, name: str) -> io.TextIOWrapper:
  """Returns standard input or output as Python makes it for a file."""
  stream = open(descriptor, f'{mode}b', closefd=False)  # noqa: SIM115
  stream.raw.name = name  # type: ignore
  text = io.TextIOWrapper(stream, 'utf-8', 'strict', newline='\n')
  text.mode = mode  # type: ignore
  return text


def _end(ours: Sequence[Any]) -> int:
  """Does what Python does at its end; returns a status if that goes wrong.

  Modules are not taken apart, which would be slow; and the program's own only
  where objects of it do something at their end. Streams that others still hold
  are flushed instead.

  Args:
    ours: The streams that every program has.
  """
  with contextlib.suppress(BaseException):
    threading._shutdown()  # type: ignore
  with contextlib.suppress(BaseException):
    atexit._run_exitfuncs()
  status = _flush_standard()
  sys.stdin, sys.stdout = sys.__stdin__, sys.__stdout__
  sys.stderr = sys.__stderr__
  if _have_ends(ours):
    gc.collect()  # Python does so twice, and what dies first depends on it.
    sys.modules.pop('__main__', None)
    gc.collect()
    status = _flush_standard() or status
    _flush(x for x in gc.get_objects() if issubclass(type(x), io.IOBase))
  _flush(ours)
  return status


def _have_ends(ours: Sequence[object]) -> bool:
  """Whether objects other than our streams do something when they die."""
  objects = gc.get_objects()
  kinds = set(map(type, objects))
  ending = {x for x in kinds if x in _SUSPENDED or hasattr(x, '__del__')}
  known = set(map(id, ours))
  return any(type(x) in ending and id(x) not in known for x in objects)


def _flush_standard() -> int:
  try:
    for stream in (sys.stdout, sys.stderr):
      if stream is not None and not getattr(stream, 'closed', False):
        stream.flush()
  except BaseException:
    return _FLUSH_STATUS
  return 0


def _flush(streams: Iterable[Any]) -> None:
  """Flushes what can be flushed: texts first, which go to bytes."""
  for stream in sorted(
    streams, key=lambda x: not issubclass(type(x), io.TextIOBase)
  ):
    with contextlib.suppress(BaseException):
      stream.flush()
