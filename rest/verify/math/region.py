r"""Reads intervals, unions and inequalities as regions of the real line.

`x > 3`, `(3,\infty)` and `\{x : x > 3\}` are one region; so are two pieces and
their union. Endpoints must be constants.
"""

import operator
from typing import NamedTuple

from rest.verify.math.lex import Unreadable
from rest.verify.math.parse import Node
from rest.verify.math.value import Value, is_scalar, less, names, values_equal

_FLIP = {'<': '>', '>': '<', r'\le': r'\ge', r'\ge': r'\le', r'\ne': r'\ne'}
_HOLDS = {
  '<': operator.lt,
  '>': operator.gt,
  r'\le': operator.le,
  r'\ge': operator.ge,
  r'\ne': operator.ne,
}
_INFINITY = -1
_MOST_ENDS = 100


class Region(NamedTuple):
  """A subset of the real line.

  Attributes:
    name: The variable that is said to be in it, or ''.
    cells: Of its line.
  """

  name: str
  cells: set[int]


class _Line:
  """The real line, cut into cells by the ends of regions.

  Ends have odd numbers, what is between them even ones: with the ends 1 and 3,
  [1, 3) is {1, 2}, and x > 3 is {4}. Numbers last once all ends are known.
  """

  def __init__(self):
    self._ends: list[Value] = []

  def cell(self, end: Value) -> int:
    """Returns the cell of an end, which is new or known."""
    if len(self._ends) > _MOST_ENDS:
      raise Unreadable('too many ends')
    for i, known in enumerate(self._ends):
      if values_equal(known, end):
        return 2 * i + 1
      if less(end, known):
        self._ends.insert(i, end)
        return 2 * i + 1
    self._ends.append(end)
    return 2 * len(self._ends) - 1

  def cells(self) -> set[int]:
    """Returns the whole line."""
    return set(range(2 * len(self._ends) + 1))

  def bounded(self, sign: str, end: Value | None) -> set[int]:
    """Returns where `x sign end` holds."""
    if end is None:
      return self.cells()
    cell = self.cell(end)
    return {x for x in self.cells() if _HOLDS[sign](x, cell)}


def same(left: Node, right: Node) -> bool | None:
  """Returns whether two regions are the same, or None where one is none."""
  line = _Line()
  try:
    for node in (left, right):  # For their ends.
      _filled(node, line)
    a, b = _filled(left, line), _filled(right, line)
  except Unreadable:
    return None
  return a.cells == b.cells and (not a.name or not b.name or a.name == b.name)


def _read(node: Node, line: _Line) -> Region:
  if node.kind == 'tuple' and len(node.parts) == 2 and node.name[0] in '([':
    return Region('', _interval(node, line))
  if node.kind == 'constant' and node.name == r'\emptyset':
    return Region('', set())
  if node.kind == 'set':
    ends = [_end(part) for part in node.parts]
    return Region('', {line.cell(end) for end in ends if end})
  if node.kind == 'name' and node.name in (r'\mathbb{R}', r'\mathbbR'):
    return Region('', line.cells())
  if node.kind == 'union':
    parts = [_filled(part, line).cells for part in node.parts]
    return Region('', set.union(*parts))
  if node.kind in ('intersection', 'without'):
    first, second = (_read(part, line).cells for part in node.parts)
    if node.kind == 'intersection':
      return Region('', first & second)
    if node.parts[1].kind != 'set':
      raise Unreadable('holes that are not points')
    return Region('', first - second)
  if node.kind == 'list' and node.name in ('or', 'and'):
    return _joined(node, line)
  if node.kind == 'relation':
    return _relation(node, line)
  raise Unreadable('no region')


def _filled(node: Node, line: _Line) -> Region:
  """Reads a region; (5, 3) is a point, or a mistake, and no empty one."""
  found = _read(node, line)
  if node.kind == 'tuple' and not found.cells:
    raise Unreadable('an interval whose ends are in the wrong order')
  return found


def _interval(node: Node, line: _Line) -> set[int]:
  low, high = _end(node.parts[0], '-'), _end(node.parts[1], '+')
  closed = node.name[0] == '[', node.name[-1] == ']'
  above = line.bounded(r'\ge' if closed[0] else '>', low)
  cells = above & line.bounded(r'\le' if closed[1] else '<', high)
  # [-\infty, 3) is not (-\infty, 3): infinity is a cell that nothing else has.
  infinite = (low is None and closed[0]) or (high is None and closed[1])
  return cells | {_INFINITY} if infinite else cells


def _joined(node: Node, line: _Line) -> Region:
  found = [_read(part, line) for part in node.parts if part.kind == 'relation']
  variables = {name for name, _ in found}
  if len(found) != len(node.parts) or len(variables) != 1:
    raise Unreadable('conditions on several variables')
  join = set.union if node.name == 'or' else set.intersection
  return Region(variables.pop(), join(*(cells for _, cells in found)))


def _relation(node: Node, line: _Line) -> Region:
  signs, sides = node.name.split(), node.parts
  if signs == [r'\in'] and sides[0].kind == 'name':
    return Region(sides[0].name, _filled(sides[1], line).cells)
  if any(sign not in _FLIP for sign in signs):
    raise Unreadable('no inequality')
  if len(sides) == 2 and sides[1].kind == 'absolute':
    return _relation(Node('relation', sides[::-1], _FLIP[signs[0]]), line)
  if len(sides) == 2 and sides[0].kind == 'absolute':
    bare = _without_bars(sides[0].parts[0], signs[0], sides[1])
    return _read(bare, line)
  if len(sides) == 3 and sides[1].kind == 'absolute':
    halves = tuple(
      Node('relation', sides[i : i + 2], signs[i]) for i in range(2)
    )
    return _joined(Node('list', halves, 'and'), line)
  places = [i for i, side in enumerate(sides) if _name(side)]
  if len(places) != 1:
    raise Unreadable('no inequality in one variable')
  place = places[0]
  if place not in (0, 1) or len(sides) - place > 2:
    raise Unreadable('a longer chain')
  cells = line.cells()
  for i, side in enumerate(sides):
    if i != place:
      sign = signs[place] if i > place else _FLIP[signs[i]]
      end = _end(side, '+' if sign in ('<', r'\le') else '-')
      cells &= line.bounded(sign, end)
  return Region(_name(sides[place]), cells)


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
  value = Value.at(node, {})
  if value is None or not value.is_real:
    raise Unreadable('an end without a value')
  return value
