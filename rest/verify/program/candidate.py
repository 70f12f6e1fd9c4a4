"""The program's end: answers calls of its functions.

All of this runs in the process that the program can change at will. Nothing
here is trusted; it only has to be right for honest programs.

Stops: nothing, since a program may replace all of it: whatever it sends is
judged as its answer, by `compare` or `tester`.
"""

import builtins
import copy
import functools
import io
import json
import operator
import os
import sys
import types
from collections.abc import Callable
from typing import Any

from rest.verify.program.interpreter import execute, exit_status, place
from rest.verify.program.sharing import SharedValues
from rest.verify.program.wire import (
  MAX_FRAME,
  Link,
  Values,
  Violation,
  dump,
  encode_rows,
  is_builtin,
)

_LONG = 10_000  # Items; longer lists cross in several messages.
_PRINTED = 1 << 20  # Characters that a call may print for the tests to see.
# What two objects of a program may be asked about each other.
BETWEEN = (
  '__eq__', '__ne__', '__lt__', '__le__', '__gt__', '__ge__', '__add__',
  '__sub__', '__mul__', '__truediv__', '__floordiv__', '__mod__', '__pow__',
  '__matmul__', '__and__', '__or__', '__xor__',
)  # fmt: skip
_REFLECTED = ('add', 'sub', 'mul', 'truediv')


def _reflected(do: Callable) -> Callable:
  return lambda x, y: do(y, x)


# What tests may do with an object whose class can.
SPECIAL = (
  {
    '__call__': lambda x, /, *arguments, **named: x(*arguments, **named),
    '__len__': len,
    '__iter__': iter,
    '__next__': next,
    '__reversed__': reversed,
    '__bool__': bool,
    '__int__': int,
    '__float__': float,
    '__str__': str,
    '__repr__': repr,
    '__hash__': hash,
    '__round__': round,
    '__enter__': lambda x: type(x).__enter__(x),
    '__exit__': lambda x, *error: type(x).__exit__(x, None, None, None),
  }
  | {f'__r{name}__': _reflected(getattr(operator, name)) for name in _REFLECTED}
  | {
    name: getattr(operator, name)
    for name in (
      *BETWEEN,
      *('__neg__', '__abs__', '__index__', '__contains__'),
      *('__getitem__', '__setitem__', '__delitem__'),
    )
  }
)


def call(descriptors: list[int]) -> int:
  """Calls functions of a program; writes a line of JSON for each result.

  Args:
    descriptors: Of the program, of what to call, and for the results. A call is
      a name, arguments, named arguments, and the builtin functions that the
      result then goes through, each with its other arguments.
  """
  program, asked, results = descriptors
  request = json.loads(_read(asked))
  module = place(program, 'program')
  values = Values()

  def run() -> None:
    execute(module, request['preamble'])
    for name, arguments, named, views in request['calls']:
      function = _entry(vars(module), name)
      value = function(*values.decode(arguments), **values.decode(named))
      for view, others in values.decode(views):
        value = getattr(builtins, view)(value, *others)
      data = memoryview(dump(values.encode(value)).encode() + b'\n')
      while data:
        data = data[os.write(results, data) :]

  return abs(exit_status(run))


def serve(descriptors: list[int]) -> int:
  """Executes a program as a module, then answers calls until the link ends.

  Args:
    descriptors: Of the program and the link.
  """
  program, link = descriptors
  module = place(program, 'program')
  os.close(program)
  server = _Server(Link(link), vars(module))
  return abs(exit_status(execute, module) or exit_status(server.answer_all))


def _entry(namespace: dict[str, Any], name: str) -> Callable:
  """Returns a function, or a method of class Solution."""
  if name not in namespace and 'Solution' in namespace:
    return getattr(namespace['Solution'](), name)
  return namespace[name]


def _read(descriptor: int) -> str:
  size = os.fstat(descriptor).st_size
  return os.pread(descriptor, size, 0).decode()


class _Server(SharedValues):
  """Answers requests about the program's objects.

  What is no data is named by its number (`{'o': number}`), with its class when
  it is named first; a class comes with its name, its bases, and what can be
  done with its objects.
  """

  def __init__(self, link: Link, namespace: dict[str, Any]):
    super().__init__()
    self._link = link
    self._namespace = namespace
    self._objects: list[object] = []
    self._places: dict[int, int] = {}  # By id.
    self._long: list[Any] = []
    self._output = io.BytesIO()
    # Held, since it would close the output at its end.
    self._stdout = io.TextIOWrapper(self._output, 'utf-8', write_through=True)
    sys.stdout = self._stdout
    self._operations: dict[str, Callable] = {
      'name': self._name,
      'items': self._items_from,
      'get': getattr,
      'set': setattr,
      'copy': copy.copy,
      'deepcopy': copy.deepcopy,
      **SPECIAL,
    }

  def answer_all(self) -> None:
    """Answers requests until the other side goes away."""
    self._printed()  # By the program's own start.
    while True:
      self._answer(self._link.receive())

  def _answer(self, request: dict[str, Any]) -> None:
    if request['forget']:
      self.forget()
    arguments, named = self._opened(request)
    do = request['do']
    try:
      result, error = self._operations[do](*arguments, **named), None
    except Violation:
      raise
    except BaseException as raised:
      result, error = [], raised
    reply = self._begun()
    if error:
      reply['raise'] = self._describe(error)
    elif do == 'items':
      self.sharing = False
      reply['value'] = encode_rows(self, result)
      self.sharing = True
    elif type(result) is list and len(result) > _LONG:
      self._long = result  # Asked for at once, before anything else.
      reply['value'] = {'L': len(result)}
    else:
      reply['value'] = self.encode(result)
    self._send(reply)

  def _opened(self, message: dict[str, Any]) -> tuple[list, dict[str, Any]]:
    """Returns the arguments that came with a message."""
    self.apply(message['changes'])
    arguments = [self.decode(x) for x in message['args']]
    named = {name: self.decode(x) for name, x in message['named'].items()}
    self.settle()
    return arguments, named

  def _begun(self) -> dict[str, Any]:
    """Returns the start of a message: what has changed, before what is new."""
    return {'changes': self.changes(), 'printed': self._printed()}

  def _send(self, message: dict[str, Any]) -> None:
    self._link.send(message)
    self.settle()

  def _printed(self) -> str:
    data = self._output.getvalue()
    self._output.seek(0)
    self._output.truncate()
    return data[:_PRINTED].decode(errors='replace')

  def _name(self, name: str) -> Any:
    """Returns what the program calls so."""
    if name not in self._namespace:
      raise NameError(f'name {name!r} is not defined')
    return self._namespace[name]

  def _items_from(self, start: int) -> list:
    """Returns as many items of the long list as a message holds."""
    items = self._long
    size = len(dump(Values().encode(items[start])))
    end = start + max(1, min(_LONG, MAX_FRAME // 4 // size))
    if end >= len(items):
      self._long = []
    return items[start:end]

  def _describe(self, error: BaseException) -> list:
    """Returns an exception as data: itself, its class, its arguments."""
    kind = type(error)
    common = is_builtin(kind) or _is_library_exception(kind)
    own = None if common else self._export(error)
    return [own, self.encode(kind), plain_arguments(error)]

  def _export(self, value: Any) -> dict[str, Any]:
    if isinstance(value, types.ModuleType):
      return {'module': value.__name__}
    if _is_library_exception(value):
      return {'exception': [value.__module__, value.__qualname__]}
    if isinstance(value, functools.partial) and value.func == self._call_back:
      return {'c': value.args[0]}
    if id(value) in self._places:
      return {'o': [self._places[id(value)]]}
    number = self._places[id(value)] = len(self._objects)
    self._objects.append(value)
    if not isinstance(value, type):
      return {'o': [number, self.encode(type(value))]}
    bases = [
      self.encode(base)
      for base in value.__bases__
      if not is_builtin(base) or issubclass(base, BaseException)
    ]
    able = [x for x in SPECIAL if any(x in vars(c) for c in value.__mro__)]
    return {'o': [number, value.__name__, bases, able]}

  def _resolve(self, tag: str, content: Any) -> Any:
    if tag == 'o':
      return self._objects[content]
    if tag == 'c':
      return functools.partial(self._call_back, content)
    if tag == 'I':
      return iter(self._decode(content))
    return super()._resolve(tag, content)

  def _call_back(self, function: int, *arguments: Any, **named: Any) -> Any:
    """Calls a function of the tests, which may call the program in turn."""
    message = self._begun()
    message['back'] = function
    message['args'] = [self.encode(x) for x in arguments]
    message['named'] = {name: self.encode(x) for name, x in named.items()}
    self._send(message)
    while (answer := self._link.receive())['do'] != 'return':
      self._answer(answer)
    (raised, value), _ = self._opened(answer)
    if raised:
      raise rebuild(*value)
    return value


def _is_library_exception(value: Any) -> bool:
  return (
    isinstance(value, type)
    and issubclass(value, Exception)
    and value.__module__.partition('.')[0] in sys.stdlib_module_names
  )


def plain_arguments(error: BaseException) -> list:
  """Returns those arguments of an exception that are plain data."""
  return [x for x in error.args if type(x) in (str, int, float, bool)]


def rebuild(kind: type[BaseException], arguments: list) -> BaseException:
  """Returns an exception of the other side, of a class that both have."""
  # These would end a loop of the caller as if all were well.
  if issubclass(kind, (StopIteration, StopAsyncIteration)):
    return RuntimeError(f'The call raised {kind.__name__}.')
  try:
    return kind(*arguments)
  except (TypeError, ValueError):  # UnicodeDecodeError, for one, wants more.
    return kind.__new__(kind)
