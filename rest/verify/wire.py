"""Data-only messages between a program's process and who judges it.

A value crosses as JSON with a tag where JSON has no such type, and is rebuilt
from plain builtins by the methods of the base classes, so that nothing that a
program overrides (`__eq__`, `__class__`, `__reduce__`) comes with it. What is
no data (functions, classes, other objects) crosses as a handle. There is no
pickle and no eval.
"""

import builtins
import datetime
import decimal
import fractions
import itertools
import json
import socket
import struct
import sys
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import Any

MAX_FRAME = 16 << 20  # Bytes of one message.
_MAX_DEPTH = 200
_LARGE = 1 << 63
_NUMPY_KINDS = 'biufcU'
_PLAIN = {str, float, bool, type(None)}

# Types that are built again from (JSON-like) arguments.
_REBUILT: dict[type, Callable[[Any], tuple]] = {
  complex: lambda x: (x.real, x.imag),
  range: lambda x: (x.start, x.stop, x.step),
  slice: lambda x: (x.start, x.stop, x.step),
  decimal.Decimal: lambda x: (str(x),),
  fractions.Fraction: lambda x: (x.numerator, x.denominator),
  datetime.date: lambda x: (x.year, x.month, x.day),
  datetime.datetime: lambda x: (*x.timetuple()[:6], x.microsecond),
  datetime.timedelta: lambda x: (x.days, x.seconds, x.microseconds),
}
_BUILD = {kind.__name__: kind for kind in _REBUILT}
# Collections that are built again from the list of their items.
_COLLECTIONS: dict[str, tuple[type, Callable[[Any], Any]]] = {
  't': (tuple, tuple),
  's': (set, set),
  'f': (frozenset, frozenset),
  'q': (deque, deque),
}
_MAPPINGS: dict[str, type] = {'C': Counter, 'O': OrderedDict, 'd': dict}
_VIEWS: dict[type, str] = {
  type({}.keys()): 'keys',
  type({}.values()): 'values',
  type({}.items()): 'items',
}


class Violation(BaseException):
  """The other side broke the rules, or is gone; never caught by a test."""


class Link:
  """Messages over a stream socket, each a length and JSON."""

  def __init__(self, descriptor: int):
    self._socket = socket.socket(fileno=descriptor)

  def send(self, message: object) -> None:
    """Sends a message; waits until the other side reads."""
    data = json.dumps(message, separators=(',', ':')).encode()
    if len(data) > MAX_FRAME:
      raise Violation(f'A message of {len(data)} bytes.')
    try:
      self._socket.sendall(struct.pack('!I', len(data)) + data)
    except OSError as error:
      raise Violation('The other side is gone.') from error

  def receive(self) -> dict[str, Any]:
    """Returns the next message."""
    (size,) = struct.unpack('!I', self._read(4))
    if size > MAX_FRAME:
      raise Violation(f'A message of {size} bytes.')
    try:
      message = json.loads(self._read(size))
    except (ValueError, RecursionError) as error:
      raise Violation('A message that is not JSON.') from error
    if type(message) is not dict:
      raise Violation('A message that is no object.')
    return message

  def _read(self, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
      try:
        chunk = self._socket.recv(min(size - len(data), 1 << 20))
      except OSError as error:
        raise Violation('The other side is gone.') from error
      if not chunk:
        raise Violation('The other side is gone.')
      data += chunk
    return bytes(data)


def encode(value: object, export: Callable[[object], Any], depth: int = 0):
  """Returns a value as JSON.

  Args:
    value: Anything.
    export: Returns the tag of what is no data.
    depth: How deep the value stands in another.

  Raises:
    Violation: It is nested too deep.
  """
  if depth > _MAX_DEPTH:
    raise Violation('A value that is nested too deep.')
  kind = type(value)
  if kind in _PLAIN:
    return value
  if issubclass(kind, int):
    number = int.__index__(value)  # type: ignore
    return number if -_LARGE < number < _LARGE else {'i': hex(number)}
  if issubclass(kind, float):
    return float.__float__(value)  # type: ignore
  if issubclass(kind, str):
    return str.__str__(value)  # type: ignore
  if issubclass(kind, list):
    return _encode_items(list.__iter__(value), export, depth)  # type: ignore
  for tag, (base, _) in _COLLECTIONS.items():
    if issubclass(kind, base):
      return {tag: _encode_items(base.__iter__(value), export, depth)}
  return _encode_rarer(value, kind, export, depth)


def _encode_items(
  items: Iterator[Any], export: Callable[[object], Any], depth: int
) -> list:
  plain = list(items)
  kinds = set(map(type, plain))
  if kinds <= _PLAIN:
    return plain
  if kinds == {int} and min(plain) > -_LARGE and max(plain) < _LARGE:
    return plain
  return [encode(x, export, depth + 1) for x in plain]


def encode_rows(rows: list, export: Callable[[object], Any]) -> Any:
  """Returns part of a long list as JSON, briefly where few texts fill it."""
  if set(map(type, rows)) == {tuple}:
    flat = list(itertools.chain.from_iterable(rows))
    if set(map(type, flat)) == {str} and len(texts := list(set(flat))) < 256:
      places = {text: i for i, text in enumerate(texts)}
      data = bytes(map(places.__getitem__, flat))
      return {'T': [texts, list(map(len, rows)), str(data, 'latin-1')]}
  return encode(rows, export)


def _decode_rows(texts: list, lengths: list, data: str) -> list[tuple]:
  cells = map(texts.__getitem__, data.encode('latin-1'))
  return [tuple(itertools.islice(cells, length)) for length in lengths]


def _encode_rarer(
  value: Any, kind: type, export: Callable[[object], Any], depth: int
):
  for tag, base in _MAPPINGS.items():
    if issubclass(kind, base):
      pairs = [list(p) for p in dict.items(value)]
      return {tag: [_encode_items(iter(p), export, depth + 1) for p in pairs]}
  if issubclass(kind, (bytes, bytearray)):
    base = bytes if issubclass(kind, bytes) else bytearray
    return {base.__name__: str(base(value), 'latin-1')}
  if kind in _REBUILT:
    fields = _encode_items(iter(_REBUILT[kind](value)), export, depth)
    return {'b': [kind.__name__, fields]}
  if kind in _VIEWS:
    items = _encode_items(iter(value), export, depth)
    return {'v': [_VIEWS[kind], items]}
  if _is_builtin(value):
    return {'n': value.__name__}
  numpy = sys.modules.get('numpy')
  if numpy and issubclass(kind, numpy.generic):
    return encode(value.item(), export, depth + 1)
  if (
    numpy
    and issubclass(kind, numpy.ndarray)
    and value.dtype.kind in _NUMPY_KINDS
  ):
    rows = encode(value.tolist(), export, depth + 1)
    return {'a': [value.dtype.str, list(value.shape), rows]}
  return export(value)


def decode(tree: Any, resolve: Callable[[dict], Any]) -> Any:
  """Returns the value of JSON from `encode`.

  Args:
    tree: What was received.
    resolve: Returns what a tag of `export` stands for.

  Raises:
    Violation: It is nothing that `encode` makes.
  """
  try:
    return _decode(tree, resolve)
  except (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
  ) as error:
    raise Violation('A message that is no value.') from error


def _decode(tree: Any, resolve: Callable[[dict], Any]) -> Any:
  if type(tree) is list:
    return _decode_items(tree, resolve)
  if type(tree) is not dict:
    return tree
  ((tag, content),) = tree.items()
  if tag == 'i':
    return int(content, 16)
  if tag in _COLLECTIONS:
    return _COLLECTIONS[tag][1](_decode_items(content, resolve))
  if tag in _MAPPINGS:
    pairs = [_decode_items(p, resolve) for p in content]
    return _MAPPINGS[tag]({k: v for k, v in pairs})  # noqa: C416
  if tag in ('bytes', 'bytearray'):
    data = content.encode('latin-1')
    return data if tag == 'bytes' else bytearray(data)
  if tag == 'b':
    return _BUILD[content[0]](*_decode_items(content[1], resolve))
  if tag == 'v':
    return _view(content[0], _decode_items(content[1], resolve))
  if tag == 'n':
    return _type(content)
  if tag == 'T':
    return _decode_rows(*content)
  if tag == 'a':
    return _array(content[0], content[1], _decode(content[2], resolve))
  return resolve(tree)


def _decode_items(items: list, resolve: Callable[[dict], Any]) -> list:
  if type(items) is not list:
    raise ValueError('Not a list.')
  kinds = set(map(type, items))
  if dict in kinds or list in kinds:
    return [_decode(x, resolve) for x in items]
  if kinds == {str}:
    return list(map(sys.intern, items))  # Many are the same in long results.
  return items


def _view(name: str, items: list) -> Any:
  if name == 'keys':
    return dict.fromkeys(items).keys()
  if name == 'values':
    return dict(enumerate(items)).values()
  return dict(items).items()


def _type(name: str) -> type:
  kind = getattr(builtins, name)
  if type(kind) is not type:
    raise ValueError('Not a type.')
  return kind


def _array(kind: str, shape: list[int], items: list) -> Any:
  import numpy  # Only here, since few programs use it.

  if numpy.dtype(kind).kind not in _NUMPY_KINDS:
    raise ValueError('Not an array of data.')
  return numpy.array(items, kind).reshape(shape)


def _is_builtin(value: object) -> bool:
  """Whether a value is a type that every program has."""
  return (
    type(value) is type and getattr(builtins, value.__name__, None) is value
  )
