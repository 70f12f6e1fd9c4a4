r"""Reads what is assigned to several names: `AB=4, CD=5`, `p=5,q=2; p=7,q=2`.

References are written so, and answers leave the names out: 4, 5 and (5,2),
(7,2). The values then count in the order in which they are written. What x, y
and z are is a point, and no list: 1, 3 are two values of one unknown.
"""

import re

from rest.verify.math.parse import Node

_COORDINATES = {'x', 'y', 'z'}
_INDEXED = re.compile(r'([^_]+)_.+')


def spread(left: Node, right: Node) -> tuple[Node, Node]:
  """Returns `(x,y)=(1,2)` as `x=1, y=2`, where the other is written so."""
  if _names(left) and not _names(right):
    return left, _spread(right)
  if _names(right) and not _names(left):
    return _spread(left), right
  return left, right


def values_in_order(left: Node, right: Node) -> tuple[Node, Node] | None:
  """Returns both without names, where one assigns and the other does not."""
  named, bare = _names(left), _names(right)
  if bool(named) == bool(bare):
    return None
  assigned, other = (left, right) if named else (right, left)
  names = named or bare
  if _has_relation(other):
    return None
  values = [part.parts[1] for part in assigned.parts]
  count = len(set(names))
  roots = {_INDEXED.sub(r'\1', name) for name in names}
  if len(roots) == 1 and count == len(names):  # x_1 = 2, x_2 = 3
    return Node('list', tuple(values), ','), other
  rows = [
    Node('tuple', tuple(values[i : i + count]), '()')
    for i in range(0, len(values), count)
  ]
  if len(rows) > 1:
    return Node('list', tuple(rows), ','), other
  if other.kind == 'list' and not set(names) <= _COORDINATES:
    other = Node('tuple', other.parts, '()')
  return rows[0], other


def _names(node: Node) -> list[str]:
  """Returns the names of a list of assignments to at least two, or none.

  They come in the same order again and again: p, q, p, q.
  """
  if node.kind not in ('list', 'set') or node.name == 'or':
    return []
  names = []
  for part in node.parts:
    sides = part.parts if part.kind == 'relation' and part.name == '=' else ()
    if len(sides) != 2 or not _is_name(sides[0]):
      return []
    names.append(repr(sides[0]) if sides[0].kind != 'name' else sides[0].name)
  count = len(set(names))
  repeated = names[:count] * (len(names) // count) if count else []
  return names if count > 1 and repeated == names else []


def _is_name(node: Node) -> bool:
  if node.kind == 'multiply':
    return all(map(_is_name, node.parts))
  return node.kind == 'name'


def _has_relation(node: Node) -> bool:
  return node.kind == 'relation' or any(map(_has_relation, node.parts))


def _spread(node: Node) -> Node:
  if node.kind != 'relation' or node.name != '=' or len(node.parts) != 2:
    return node
  names, values = node.parts
  if names.kind != 'tuple' or values.kind != 'tuple':
    return node
  if len(names.parts) != len(values.parts):
    return node
  pairs = zip(names.parts, values.parts, strict=True)
  return Node('list', tuple(Node('relation', p, '=') for p in pairs), ',')
