r"""Reads intervals, unions and inequalities as regions of the real line.

`x > 3`, `(3,\infty)` and `\{x : x > 3\}` are one region; so are two pieces and
their union. Endpoints must be constants.
"""

import functools
from typing import NamedTuple

from rest.verify.math.lex import Unreadable
from rest.verify.math.parse import Node
from rest.verify.math.value import Value, is_scalar, less, names, values_equal

_FLIP = {'<': '>', '>': '<', r'\le': r'\ge', r'\ge': r'\le', r'\ne': r'\ne'}
_PIECES = 50


class Piece(NamedTuple):
  """A connected part of a region; None is infinite."""

  low: Value | None
  low_closed: bool
  high: Value | None
  high_closed: bool


class Region(NamedTuple):
  """A subset of the real line.

  Attributes:
    name: The variable that is said to be in it, or ''.
    pieces: Disjoint and in order.
  """

  name: str
  pieces: list[Piece]


_LINE = Piece(None, False, None, False)


def region(node: Node) -> Region | None:
  """Returns the region that a tree is, or None where it is none."""
  try:
    name, pieces = _read(node)
  except Unreadable:
    return None
  return Region(name, _merged(pieces))


def equal(left: Region, right: Region) -> bool:
  """Returns whether two regions are the same."""
  if left.name and right.name and left.name != right.name:
    return False
  return len(left.pieces) == len(right.pieces) and all(
    a.low_closed == b.low_closed
    and a.high_closed == b.high_closed
    and _same_end(a.low, b.low)
    and _same_end(a.high, b.high)
    for a, b in zip(left.pieces, right.pieces, strict=True)
  )


def _read(node: Node) -> tuple[str, list[Piece]]:
  if node.kind == 'tuple' and len(node.parts) == 2 and node.name[0] in '([':
    low, high = _end(node.parts[0], '-'), _end(node.parts[1], '+')
    closed = node.name[0] == '[', node.name[-1] == ']'
    return '', [Piece(low, closed[0], high, closed[1])]
  if node.kind == 'constant' and node.name == r'\emptyset':
    return '', []
  if node.kind == 'set':
    ends = [_end(part) for part in node.parts]
    return '', [Piece(end, True, end, True) for end in ends]
  if node.kind == 'name' and node.name in (r'\mathbb{R}', r'\mathbbR'):
    return '', [_LINE]
  if node.kind == 'union':
    return '', [piece for part in node.parts for piece in _read(part)[1]]
  if node.kind == 'intersection':
    (_, left), (_, right) = map(_read, node.parts)
    both = [_overlap(a, b) for a in left for b in right]
    return '', [piece for piece in both if _is_filled(piece)]
  if node.kind == 'without':
    return '', _without(_read(node.parts[0])[1], _read(node.parts[1])[1])
  if node.kind == 'list' and node.name in ('or', 'and'):
    return _joined(node)
  if node.kind == 'relation':
    return _relation(node)
  raise Unreadable('no region')


def _joined(node: Node) -> tuple[str, list[Piece]]:
  found = [_read(part) for part in node.parts if part.kind == 'relation']
  variables = {name for name, _ in found}
  if len(found) != len(node.parts) or len(variables) != 1:
    raise Unreadable('conditions on several variables')
  if node.name == 'or':
    return variables.pop(), [piece for _, pieces in found for piece in pieces]
  pieces = found[0][1]
  for _, others in found[1:]:
    pieces = [_overlap(a, b) for a in pieces for b in others]
  return variables.pop(), [piece for piece in pieces if _is_filled(piece)]


def _relation(node: Node) -> tuple[str, list[Piece]]:
  signs, sides = node.name.split(), node.parts
  if signs == [r'\in'] and sides[0].kind == 'name':
    return sides[0].name, _read(sides[1])[1]
  if any(sign not in _FLIP for sign in signs):
    raise Unreadable('no inequality')
  if len(sides) == 2 and sides[1].kind == 'absolute':
    return _relation(Node('relation', sides[::-1], _FLIP[signs[0]]))
  if len(sides) == 2 and sides[0].kind == 'absolute':
    return _read(_without_bars(sides[0].parts[0], signs[0], sides[1]))
  if len(sides) == 3 and sides[1].kind == 'absolute':
    halves = tuple(
      Node('relation', sides[i : i + 2], signs[i]) for i in range(2)
    )
    return _joined(Node('list', halves, 'and'))
  places = [i for i, side in enumerate(sides) if _name(side)]
  if len(places) != 1:
    raise Unreadable('no inequality in one variable')
  place = places[0]
  pieces = [_LINE]
  for i, side in enumerate(sides):
    if i == place:
      continue
    if abs(i - place) != 1:
      raise Unreadable('a longer chain')
    sign = signs[place] if i > place else _FLIP[signs[i]]
    bounds = _bounded(sign, _end(side, '+' if sign in ('<', r'\le') else '-'))
    pieces = [_overlap(a, b) for a in pieces for b in bounds]
  return _name(sides[place]), [piece for piece in pieces if _is_filled(piece)]


def _name(node: Node) -> str:
  """Returns what is bounded: a variable, or a function's value as in 0<f(x)."""
  if node.kind == 'name':
    return node.name
  if node.kind != 'multiply' or {p.kind for p in node.parts} != {'name'}:
    return ''
  return '{}({})'.format(*(part.name for part in node.parts))


def _without_bars(inner: Node, sign: str, bound: Node) -> Node:
  """Returns `|x| sign bound` as bounds on x."""
  negative = Node('negate', (bound,))
  if sign in ('<', r'\le'):
    return Node('relation', (negative, inner, bound), f'{sign} {sign}')
  below = Node('relation', (inner, negative), _FLIP[sign])
  above = Node('relation', (inner, bound), sign)
  return Node('list', (below, above), 'and' if sign == r'\ne' else 'or')


def _bounded(sign: str, end: Value | None) -> list[Piece]:
  """Returns where `x sign end` holds."""
  below = Piece(None, False, end, sign == r'\le')
  above = Piece(end, sign == r'\ge', None, False)
  if sign == r'\ne':
    return [below, above]
  if end is None:
    return [_LINE]
  return [below] if sign in ('<', r'\le') else [above]


def _end(node: Node, infinity: str = '') -> Value | None:
  """Returns an end point, or None for infinity, of the sign allowed there."""
  negative = node.kind == 'negate'
  bare = node.parts[0] if negative else node
  if bare.kind == 'constant' and bare.name == r'\infty':
    if infinity != '-+'[not negative]:
      raise Unreadable('infinity on the wrong side')
    return None
  if not is_scalar(node) or names(node):
    raise Unreadable('an end that is not a constant')
  value = Value.constant(node)
  if value is None or not value.is_real:
    raise Unreadable('an end without a value')
  return value


def _overlap(a: Piece, b: Piece) -> Piece:
  low, low_closed = a.low, a.low_closed
  if b.low is not None and (low is None or not less(b.low, low)):
    both = low is not None and values_equal(low, b.low)
    low, low_closed = b.low, b.low_closed and (a.low_closed or not both)
  high, high_closed = a.high, a.high_closed
  if b.high is not None and (high is None or not less(high, b.high)):
    both = high is not None and values_equal(high, b.high)
    high, high_closed = b.high, b.high_closed and (a.high_closed or not both)
  return Piece(low, low_closed, high, high_closed)


def _is_filled(piece: Piece) -> bool:
  if piece.low is None or piece.high is None:
    return True
  if values_equal(piece.low, piece.high):
    return piece.low_closed and piece.high_closed
  return less(piece.low, piece.high)


def _without(pieces: list[Piece], holes: list[Piece]) -> list[Piece]:
  for hole in holes:
    if hole.low is None or hole.low is not hole.high:
      raise Unreadable('a hole that is not a point')
    parts = (
      Piece(None, False, hole.low, False),
      Piece(hole.low, False, None, False),
    )
    pieces = [_overlap(piece, part) for piece in pieces for part in parts]
    pieces = [piece for piece in pieces if _is_filled(piece)]
  return pieces


def _merged(pieces: list[Piece]) -> list[Piece]:
  """Returns the pieces in order, those that touch joined."""
  if len(pieces) > _PIECES:
    raise Unreadable('too many pieces')
  merged: list[Piece] = []
  for piece in sorted(pieces, key=functools.cmp_to_key(_order)):
    if merged and _touch(merged[-1], piece):
      last = merged.pop()
      piece = _joined_pieces(last, piece)
    merged.append(piece)
  return merged


def _order(a: Piece, b: Piece) -> int:
  if a.low is None or b.low is None:
    return (b.low is None) - (a.low is None)
  if values_equal(a.low, b.low):
    return b.low_closed - a.low_closed
  return -1 if less(a.low, b.low) else 1


def _touch(a: Piece, b: Piece) -> bool:
  """Returns whether b, which starts no earlier, leaves no gap behind a."""
  if a.high is None or b.low is None:
    return True
  if values_equal(a.high, b.low):
    return a.high_closed or b.low_closed
  return less(b.low, a.high)


def _joined_pieces(a: Piece, b: Piece) -> Piece:
  low_closed = a.low_closed
  if a.high is None or b.high is None:
    return Piece(a.low, low_closed, None, False)
  if values_equal(a.high, b.high):
    closed = a.high_closed or b.high_closed
    return Piece(a.low, low_closed, a.high, closed)
  last = b if less(a.high, b.high) else a
  return Piece(a.low, low_closed, last.high, last.high_closed)


def _same_end(a: Value | None, b: Value | None) -> bool:
  if a is None or b is None:
    return a is b
  return values_equal(a, b)
