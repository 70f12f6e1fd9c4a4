"""Data-only messages between a program's process and who judges it.

A value crosses as JSON with a tag where JSON has no such type, and is rebuilt
from plain builtins by the methods of the base classes, so that nothing that a
program overrides (`__eq__`, `__class__`, `__reduce__`) comes with it. There is
no pickle and no eval.

  (1, {2.5}) <-> {"t": [1, {"s": [2.5]}]}

Stops: code and types that ride on data; messages that are deep, huge, half, or
of no known tag end the link (`Violation`). Does not stop: a right value that
was made up elsewhere than in the function under test.
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
from collections.abc import Callable
from typing import Any

MAX_FRAME = 16 << 20  # Bytes of one message.
MAPPINGS = ('C', 'O', 'd')
_MAX_DEPTH = 200
_LARGE = 1 << 63
_NUMPY_KINDS = 'biufcU'
_PLAIN = {str, float, bool, type(None)}
# By tag; a subclass stands before its base. A list needs none.
CONTAINERS: dict[str, type] = {
  'l': list,
  't': tuple,
  'C': Counter,
  'O': OrderedDict,
  'd': dict,
  's': set,
  'f': frozenset,
  'q': deque,
  'bytearray': bytearray,
  'bytes': bytes,
}
_TEXTS = ('bytearray', 'bytes')
MUTABLE = {'l', 's', 'q', 'bytearray', *MAPPINGS}


def _zone(moment: Any) -> datetime.timezone | None:
  offset = moment.utcoffset()
  return None if offset is None else datetime.timezone(offset)


# Types that are built again from values.
_REBUILT: dict[type, Callable[[Any], tuple]] = {
  complex: lambda x: (x.real, x.imag),
  range: lambda x: (x.start, x.stop, x.step),
  slice: lambda x: (x.start, x.stop, x.step),
  decimal.Decimal: lambda x: (str(x),),
  fractions.Fraction: lambda x: (x.numerator, x.denominator),
  datetime.date: lambda x: (x.year, x.month, x.day),
  datetime.time: lambda x: (
    *(x.hour, x.minute, x.second, x.microsecond),
    _zone(x),
  ),
  datetime.datetime: lambda x: (
    *(x.year, x.month, x.day, x.hour, x.minute, x.second, x.microsecond),
    _zone(x),
  ),
  datetime.timedelta: lambda x: (x.days, x.seconds, x.microseconds),
  datetime.timezone: lambda x: (x.utcoffset(None),),
}
_BUILD = {kind.__name__: kind for kind in _REBUILT}
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
    data = dump(message).encode()
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


def dump(message: object) -> str:
  """Returns a message as brief JSON."""
  return json.dumps(message, separators=(',', ':'))


class Values:
  """Writes values as JSON, and reads them.

  What is no data is written as `{'no data': type}`, and not read.
  """

  def encode(self, value: object, depth: int = 0) -> Any:
    """Returns a value as JSON.

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
    for tag, base in CONTAINERS.items():
      if issubclass(kind, base):
        return self._container(tag, value, depth)
    return self._rarer(value, kind, depth)

  def decode(self, tree: Any) -> Any:
    """Returns the value of JSON from `encode`.

    Raises:
      Violation: It is nothing that `encode` makes.
    """
    try:
      return self._decode(tree)
    except (
      ArithmeticError,
      AttributeError,
      LookupError,
      RecursionError,
      TypeError,
      ValueError,
    ) as error:
      raise Violation('A message that is no value.') from error

  def _container(self, tag: str, value: Any, depth: int) -> Any:
    contents = self._contents(tag, value, depth)
    return contents if tag == 'l' else {tag: contents}

  def _contents(self, tag: str, value: Any, depth: int) -> Any:
    if tag in _TEXTS:
      return str(CONTAINERS[tag](value), 'latin-1')
    if tag in MAPPINGS:
      pairs = [list(pair) for pair in dict.items(value)]
      return [self._items(pair, depth + 1) for pair in pairs]
    return self._items(list(CONTAINERS[tag].__iter__(value)), depth)

  def _items(self, items: list, depth: int) -> list:
    kinds = set(map(type, items))
    if kinds <= _PLAIN:
      return items
    if kinds == {int} and min(items) > -_LARGE and max(items) < _LARGE:
      return items
    return [self.encode(x, depth + 1) for x in items]

  def _rarer(self, value: Any, kind: type, depth: int) -> Any:
    if kind in _REBUILT:
      return {
        'b': [kind.__name__, self._items([*_REBUILT[kind](value)], depth)]
      }
    if kind in _VIEWS:
      return {'v': [_VIEWS[kind], self._items([*value], depth)]}
    if is_builtin(value):
      return {'n': value.__name__}
    numpy = sys.modules.get('numpy')
    if numpy and issubclass(kind, numpy.generic):
      return self.encode(value.item(), depth + 1)
    if (
      numpy
      and issubclass(kind, numpy.ndarray)
      and value.dtype.kind in _NUMPY_KINDS
    ):
      rows = Values().encode(value.tolist(), depth + 1)
      return {'a': [value.dtype.str, list(value.shape), rows]}
    return self._export(value)

  def _export(self, value: object) -> dict[str, Any]:
    return {'no data': type(value).__name__}

  def _decode(self, tree: Any) -> Any:
    if type(tree) is list:
      return self._build('l', tree)
    if type(tree) is not dict:
      return tree
    ((tag, content),) = tree.items()
    if tag in CONTAINERS:
      return self._build(tag, content)
    if tag == 'i':
      return int(content, 16)
    if tag == 'b':
      return _BUILD[content[0]](*self._decode_items(content[1]))
    if tag == 'v':
      return _view(content[0], self._decode_items(content[1]))
    if tag == 'n':
      return _type(content)
    if tag == 'a':
      return _array(content[0], content[1], Values().decode(content[2]))
    return self._resolve(tag, content)

  def _build(self, tag: str, content: Any) -> Any:
    if tag in _TEXTS:
      return CONTAINERS[tag](content.encode('latin-1'))
    if tag in MAPPINGS:
      pairs = [self._decode_items(pair) for pair in content]
      return CONTAINERS[tag]({k: v for k, v in pairs})  # noqa: C416
    items = self._decode_items(content)
    return items if tag == 'l' else CONTAINERS[tag](items)

  def _decode_items(self, items: Any) -> list:
    if type(items) is not list:
      raise ValueError('Not a list.')
    kinds = set(map(type, items))
    if dict in kinds or list in kinds:
      return [self._decode(x) for x in items]
    return list(items)

  def _resolve(self, tag: str, content: Any) -> Any:
    raise ValueError(f'No tag {tag!r}.')


def encode_rows(values: Values, rows: list) -> Any:
  """Returns part of a long list as JSON, briefly where few texts fill it."""
  if set(map(type, rows)) == {tuple}:
    flat = list(itertools.chain.from_iterable(rows))
    if set(map(type, flat)) == {str} and len(texts := list(set(flat))) < 256:
      places = {text: i for i, text in enumerate(texts)}
      data = bytes(map(places.__getitem__, flat))
      return {'T': [texts, list(map(len, rows)), str(data, 'latin-1')]}
  return values.encode(rows)


def decode_rows(texts: list, lengths: list, data: str) -> list[tuple]:
  """Returns what `encode_rows` has made brief."""
  cells = map(texts.__getitem__, data.encode('latin-1'))
  return [tuple(itertools.islice(cells, length)) for length in lengths]


def is_builtin(value: object) -> bool:
  """Whether a value is a type that every program has."""
  return (
    type(value) is type and getattr(builtins, value.__name__, None) is value
  )


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
