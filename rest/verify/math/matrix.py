"""Computes sums and products of matrices: `2A`, `A+B`, `AB`."""

from collections.abc import Callable

from rest.verify.math.lex import Unreadable
from rest.verify.math.parse import Node
from rest.verify.math.value import is_scalar

_CELLS = 64


def computed(node: Node) -> Node:
  """Returns a tree of matrices as the matrix that it stands for.

  Raises:
    Unreadable: It is no such tree, or its sizes do not fit.
  """
  rows = _rows(node)
  return Node('matrix', tuple(Node('row', tuple(row)) for row in rows))


def _rows(node: Node) -> list[list[Node]]:
  if node.kind == 'matrix':
    rows = [list(row.parts) for row in node.parts]
    if len({len(row) for row in rows}) == 1 and len(rows) <= _CELLS:
      return rows
  if node.kind == 'negate':
    return _changed(node.parts[0], lambda cell: Node('negate', (cell,)))
  if node.kind == 'add':
    total, *others = map(_rows, node.parts)
    for other in others:
      total = _each(total, other)
    return total
  if node.kind == 'multiply' and is_scalar(node.parts[0]):
    factor, inner = node.parts
    return _changed(inner, lambda cell: Node('multiply', (factor, cell)))
  if node.kind in ('multiply', 'divide') and is_scalar(node.parts[1]):
    inner, factor = node.parts
    return _changed(inner, lambda cell: Node(node.kind, (cell, factor)))
  if node.kind == 'multiply':
    return _product(*map(_rows, node.parts))
  raise Unreadable('no matrix')


def _changed(node: Node, change: Callable[[Node], Node]) -> list[list[Node]]:
  return [[change(cell) for cell in row] for row in _rows(node)]


def _each(left: list[list[Node]], right: list[list[Node]]) -> list[list[Node]]:
  if len(left) != len(right) or len(left[0]) != len(right[0]):
    raise Unreadable('matrices of different sizes')
  return [
    [Node('add', pair) for pair in zip(*rows, strict=True)]
    for rows in zip(left, right, strict=True)
  ]


def _product(
  left: list[list[Node]], right: list[list[Node]]
) -> list[list[Node]]:
  if len(left[0]) != len(right) or len(left) * len(right[0]) > _CELLS:
    raise Unreadable('matrices of sizes that do not fit')
  columns = list(zip(*right, strict=True))
  return [[_dot(row, column) for column in columns] for row in left]


def _dot(row: list[Node], column: tuple[Node, ...]) -> Node:
  pairs = zip(row, column, strict=True)
  return Node('add', tuple(Node('multiply', pair) for pair in pairs))
