"""The program's end: answers calls of its functions.

All of this runs in the process that the program can change at will. Nothing
here is trusted; it only has to be right for honest programs.
"""

import builtins
import functools
import json
import operator
import os
import types
from collections.abc import Callable
from typing import Any

from rest.verify.interpreter import MEMORY_STATUS, execute, exit_status, place
from rest.verify.wire import (
  MAX_FRAME,
  Link,
  Violation,
  decode,
  encode,
  encode_rows,
)

_LONG = 10_000  # Items; longer lists cross in several messages.
_MUTABLE_TAGS = {'d', 's', 'q', 'C', 'O', 'bytearray'}


def call(descriptors: list[int]) -> int:
  """Calls a function of a program; writes the result as data.

  Args:
    descriptors: Of the program, of what to call, and for the result.
  """
  program, asked, result = descriptors
  request = json.loads(_read(asked))
  module = place(program, 'program')

  def run() -> None:
    execute(module, request['preamble'])
    function = _entry(vars(module), request['entry_point'])
    value = function(*json.loads(request['arguments']))
    data = memoryview(json.dumps(encode(value, _refuse)).encode())
    while data:
      data = data[os.write(result, data) :]

  return abs(exit_status(run))


def serve(descriptors: list[int]) -> int:
  """Executes a program as a module, then answers calls until the link ends.

  Args:
    descriptors: Of the program and the link.
  """
  program, link = descriptors
  module = place(program, 'program')
  os.close(program)
  server = _Server(Link(link))
  if status := exit_status(execute, module):
    return abs(status)
  server.namespace = vars(module)
  try:
    server.answer_all()
  except MemoryError:
    return MEMORY_STATUS
  except Violation:
    return 1
  return 0


def _entry(namespace: dict[str, Any], name: str) -> Callable:
  """Returns a function, or a method of class Solution."""
  if name not in namespace and 'Solution' in namespace:
    return getattr(namespace['Solution'](), name)
  return namespace[name]


def _refuse(value: object) -> None:
  raise TypeError(f'{type(value).__name__} is no data.')


def _read(descriptor: int) -> str:
  size = os.fstat(descriptor).st_size
  return os.pread(descriptor, size, 0).decode()


class _Server:
  """Answers requests about the program's objects."""

  def __init__(self, link: Link):
    self.namespace: dict[str, Any] = {}
    self._link = link
    self._objects: list[object] = []
    self._long: list[Any] = []
    self._operations: dict[str, Callable] = {
      'names': self._names,
      'items': self._items,
      'call': lambda f, *a, **k: f(*a, **k),
      'get': getattr,
      'set': setattr,
      'len': len,
      'bool': bool,
      'str': str,
      'repr': repr,
      'int': int,
      'float': float,
      'iter': iter,
      'next': next,
      'enter': lambda x: type(x).__enter__(x),
      'exit': lambda x: type(x).__exit__(x, None, None, None),
    }

  def answer_all(self) -> None:
    """Answers requests until the other side goes away."""
    while True:
      self._answer(self._link.receive())

  def _answer(self, request: dict[str, Any]) -> None:
    trees = request['args']
    arguments = [self._decode(x) for x in trees]
    named = {k: self._decode(x) for k, x in request['named'].items()}
    name = request['do']
    operation = self._operations.get(name) or getattr(operator, name)
    reply: dict[str, Any] = {'id': request['id']}
    try:
      result = operation(*arguments, **named)
      if name == 'items':
        reply['value'] = encode_rows(result, self._export)
      elif type(result) is list and len(result) > _LONG:
        self._long = result  # Asked for at once, before anything else.
        reply['value'] = {'L': len(result)}
      else:
        reply['value'] = self._encode(result)
    except Exception as error:
      reply['raise'] = describe(error, self._encode)
    changes = {
      i: new
      for i, tree in enumerate(trees)
      if is_mutable(tree)
      and json.dumps(new := self._encode(arguments[i])) != json.dumps(tree)
    }
    if changes:
      reply['changes'] = list(changes.items())
    self._link.send(reply)

  def _names(self, names: list[str]) -> dict[str, Any]:
    """Returns what the program calls by these names, modules aside."""
    found = {n: self.namespace[n] for n in names if n in self.namespace}
    return {
      n: _ModuleName(x.__name__) if isinstance(x, types.ModuleType) else x
      for n, x in found.items()
    }

  def _items(self, start: int) -> list:
    """Returns as many items of the long list as a message holds."""
    items = self._long
    size = len(json.dumps(self._encode(items[start])))
    end = start + max(1, min(_LONG, MAX_FRAME // 4 // size))
    if end >= len(items):
      self._long = []
    return items[start:end]

  def _encode(self, value: object) -> Any:
    return encode(value, self._export)

  def _export(self, value: object) -> dict[str, Any]:
    if isinstance(value, _ModuleName):
      return {'m': value.name}
    if isinstance(value, functools.partial) and value.func == self._call_back:
      return {'c': value.args[0]}
    self._objects.append(value)
    return {'h': len(self._objects) - 1}

  def _decode(self, tree: Any) -> Any:
    return decode(tree, self._resolve)

  def _resolve(self, tree: dict[str, Any]) -> Any:
    if 'r' in tree:
      return self._objects[tree['r']]
    if 'c' in tree:
      return functools.partial(self._call_back, tree['c'])
    return iter(self._decode(tree['I']))

  def _call_back(self, function: int, *arguments: Any, **named: Any) -> Any:
    """Calls a function of the tests, which may call the program in turn."""
    self._link.send(
      {
        'back': function,
        'args': [self._encode(x) for x in arguments],
        'named': {k: self._encode(x) for k, x in named.items()},
      }
    )
    while True:
      message = self._link.receive()
      if 'do' not in message:
        break
      self._answer(message)
    if 'raise' in message:
      raise rebuild(message['raise'], self._decode)
    return self._decode(message['value'])


class _ModuleName:
  """Stands for a module, which does not cross."""

  def __init__(self, name: str):
    self.name = name


def is_mutable(tree: Any) -> bool:
  """Whether a tree stands for something that a call can change."""
  if type(tree) is dict:
    return next(iter(tree)) in _MUTABLE_TAGS
  return type(tree) is list


def describe(error: Exception, encode: Callable[[object], Any]) -> list:
  """Returns an exception as data: its first builtin class, and arguments."""
  kind = next(
    c for c in type(error).__mro__ if getattr(builtins, c.__name__, None) is c
  )
  data = (str, int, float)
  return [kind.__name__, [encode(a) for a in error.args if type(a) in data]]


def rebuild(tree: Any, decode: Callable[[Any], Any]) -> Exception:
  """Returns the exception of `describe`."""
  name, arguments = tree
  kind = getattr(builtins, name, None)
  if not (type(kind) is type and issubclass(kind, Exception)):
    raise Violation('A message with no exception.')
  # These would end a loop of the caller as if all were well.
  if issubclass(kind, (StopIteration, StopAsyncIteration)):
    return RuntimeError(f'The call raised {name}.')
  try:
    return kind(*decode(arguments))
  except (TypeError, ValueError):  # UnicodeDecodeError, for one, wants more.
    return Exception(name)
