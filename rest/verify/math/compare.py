r"""Decides whether two answers are equal, by what they are.

Words are compared as words, points by their coordinates in order, sets and
lists in any order, intervals with their ends, equations up to a factor, and
expressions by their values. What cannot be read is left to the caller.
"""

import functools
import itertools
import re

from rest.verify.math import assign, matrix, region, units
from rest.verify.math.lex import Unreadable
from rest.verify.math.parse import Node, parse
from rest.verify.math.value import (
  is_rounded,
  is_scalar,
  names,
  proportion,
  same,
)

_ITEMS = 40
_ORDER = {'<': 1, r'\le': 1, '>': -1, r'\ge': -1}
_CHOICE = re.compile(r'\(?([A-Z])\)?')
_CHOSEN = re.compile(  # With its text, but no other choice, behind it.
  r'(?:\(([A-Z])\)|([A-Z])[).:])'
  r'(?:\s(?!.*(?:\([A-Z]\)|\b(?:or|and|not) [A-Z]\b)).*)?',
  re.DOTALL,
)
_ALL_REALS = re.compile(
  r'(?:the set of )?all reals?(?: numbers?)?|\(?all real numbers\)?'
)

# Of a number that is not decimal: 77_8, 77_{\text{eight}}, 77 (base 8).
_BASES = {
  'two': 2, 'three': 3, 'four': 4, 'five': 5, 'six': 6, 'seven': 7, 'eight': 8,
  'nine': 9, 'ten': 10, 'eleven': 11, 'twelve': 12, 'sixteen': 16,
}  # fmt: skip
_BASE = re.compile(
  r'(?<=[\dA-F])\s*(?:\\text\{\s*|\(\s*)*'
  r'(?:_\s*\{?\s*(?:\\text\s*\{)?|\b(?:in )?base\b[ \-}{]*)'
  rf'\s*(\d+|{"|".join(_BASES)})\s*[}})]*$'
)

# Texts are looked at several times a verdict, and references in many verdicts.
_remembered = functools.lru_cache(maxsize=1024)

# Mathematics written as words, and products of variables.
_NO_WORDS = {'and', 'sqrt', 'infinity', 'inf', 'infty', 'theta', 'alpha'}


def equal(gold: str, answer: str) -> bool:
  """Returns whether two cleaned answers are equal.

  Raises:
    Unreadable: One of them is outside the grammar.
  """
  gold, answer = _symbols(gold), _symbols(answer)
  for one, other in ((gold, answer), (answer, gold)):
    if r'\approx' in one and r'\approx' not in other:
      return any(equal(value, other) for value in _approximated(one))
  if _words(gold) == _words(answer):
    return True
  times = units.time(gold), units.time(answer)
  if any(times):
    return times[0] == times[1]
  choice = _CHOICE.fullmatch(_plain(gold))
  if choice and (chosen := _CHOSEN.fullmatch(_plain(answer))):
    return choice.group(1) == (chosen.group(1) or chosen.group(2))
  if choice and choice.group(1) <= 'E' and len(_plain(answer)) == 1:
    return choice.group(1) == _plain(answer).upper()
  if _is_prose(gold) or _is_prose(answer):
    return _words_in_order(gold) == _words_in_order(answer)
  gold, gold_unit = units.split(gold)
  answer, answer_unit = units.split(answer)
  if not units.agree(gold_unit, answer_unit):
    return False
  return _equal(parse(gold), parse(answer))


def _approximated(answer: str) -> list[str]:
  r"""Returns both values of 'x = 1/3 \approx 0.33', if it is one that holds."""
  exact, _, decimal = answer.partition(r'\approx')
  node, name_and_value = parse(decimal), _unnamed(parse(exact))
  value = name_and_value[1]
  if r'\approx' in decimal or not is_scalar(value) or names(value):
    return []
  return [exact, decimal] if is_rounded(node, value) else []


@_remembered
def _plain(answer: str) -> str:
  r"""Returns an answer with its `\text{...}` opened."""
  return ' '.join(re.sub(r'\\text\s*\{([^{}]*)\}', r' \1 ', answer).split())


@_remembered
def _words(answer: str) -> str:
  """Returns an answer as it reads, without spaces and case of words."""
  plain = re.sub(
    r'(?<![A-Za-z\\])(?:the|an|a(?= [A-Za-z]{3})) ', '', _plain(answer)
  )
  plain = re.sub(r'(?<!\w) | (?!\w)', '', plain)
  plain = re.sub(r'(?<=\w)\.$', '', plain)
  words = re.fullmatch(r"[A-Za-z,.()' -]{2,}", plain)
  if words and (' ' not in plain or re.search(r'[A-Za-z]{3}', plain)):
    plain = plain.lower()
  return plain


def _words_in_order(answer: str) -> list[str]:
  """Returns the items of a list of words, sorted."""
  items = re.split(r'[,;]|\band\b', _plain(answer))
  return sorted(filter(None, map(_words, items)))


def _is_prose(answer: str) -> bool:
  """Returns whether there is nothing but words."""
  plain = _plain(answer)
  words = set(re.findall(r'[A-Za-z]{3,}', plain.lower())) - _NO_WORDS
  return bool(words) and not re.search(r'[^A-Za-z ,.\'?!-]', plain)


@_remembered
def _symbols(answer: str) -> str:
  """Returns an answer with the words that have a symbol replaced by it."""
  if _ALL_REALS.fullmatch(_plain(answer).lower()):
    return r'\mathbb{R}'
  answer = re.sub(r'\((\d[\dA-F]*)\)\s*_', r'\1_', answer)
  answer = re.sub(
    r'(?<=\d)\\text\{([A-F]+)\}|\\text\{([A-F]+)\}(?=[\d_])',
    r'\1\2',
    answer,
  )
  answer = _BASE.sub(
    lambda m: f'_{{{_BASES.get(m.group(1), m.group(1))}}}', answer
  )
  return re.sub(r'(?<=[)\]])\s*U\s*(?=[(\[])', r'\\cup ', answer)


def _equal(left: Node, right: Node) -> bool:
  if left == right:
    return True
  left, right = _expanded(left), _expanded(right)
  left, right = assign.spread(left, right)
  as_region = _regions(left, right)
  if as_region is not None:
    return as_region
  left_name, left = _unnamed(left)
  right_name, right = _unnamed(right)
  if left_name and right_name and not _names_agree(left_name, right_name):
    return False
  if (assigned := assign.values_in_order(left, right)) is not None:
    return _equal(*assigned)
  if {left.kind, right.kind} & {'list', 'set'}:
    left_items, right_items = _items(left), _items(right)
    if _relations(left_items) != _relations(right_items):
      return False  # x = 1, y = 2 is not 1, 2.
    return _same_items(left_items, right_items)
  if 'relation' in (left.kind, right.kind):
    if left.kind != right.kind:
      # 'x + y = 5' was not named above; against 'y = 5 - x' it is an equation.
      left, right = _renamed(left_name, left), _renamed(right_name, right)
    return left.kind == right.kind and _same_relation(left, right)
  return _same_structure(left, right)


def _same_structure(left: Node, right: Node) -> bool:
  if left.kind == right.kind == 'negate':  # Of a number with a base.
    left, right = left.parts[0], right.parts[0]
  if is_scalar(left) and is_scalar(right):
    infinite = _is_infinite(left) or _is_infinite(right)
    return left == right if infinite else same(left, right)
  if left.kind != right.kind and 'matrix' in (left.kind, right.kind):
    left, right = matrix.computed(left), matrix.computed(right)
  if left.kind != right.kind or left.name.lstrip('0') != right.name.lstrip('0'):
    return False
  if left.value != right.value or len(left.parts) != len(right.parts):
    return False
  pairs = zip(left.parts, right.parts, strict=True)
  return all(_equal(a, b) for a, b in pairs)


def _is_infinite(node: Node) -> bool:
  return node.name == r'\infty' or any(map(_is_infinite, node.parts))


def _regions(left: Node, right: Node) -> bool | None:
  """Returns whether two regions are equal, or None where one is none."""
  plain = ('tuple', 'set', 'name')
  if left.kind in plain and left.kind == right.kind:
    return None
  return region.same(left, right)


def _items(node: Node) -> list[Node]:
  """Returns what a list or set holds, without names and repetitions."""
  parts = list(node.parts) if node.kind in ('list', 'set') else [node]
  if node.name == r'\emptyset':
    parts = []
  named = [_unnamed(part) for part in parts]
  found = {repr(name) for name, _ in named if name is not None}
  if len(found) == 1 and named[0][0] is not None:  # x = 1, 3
    parts = [value for _, value in named]
  if len(parts) > _ITEMS:
    raise Unreadable('too many items')
  distinct: list[Node] = []
  for part in parts:
    if not any(_equal(part, other) for other in distinct):
      distinct.append(part)
  return distinct


def _relations(items: list[Node]) -> int:
  return sum(item.kind == 'relation' for item in items)


def _same_items(left: list[Node], right: list[Node]) -> bool:
  if len(left) != len(right):
    return False
  rest = list(right)
  for item in left:
    match = next((other for other in rest if _equal(item, other)), None)
    if match is None:
      return False
    rest.remove(match)
  return True


def _same_relation(left: Node, right: Node) -> bool:
  """Returns whether two equations or inequalities say the same."""
  if left.parts == right.parts and left.name == right.name:
    return True
  if not all(map(is_scalar, (*left.parts, *right.parts))):
    return False
  if len(left.parts) == 2 == len(right.parts):
    a, b = (
      Node('add', (n.parts[0], _minus(n.parts[1]))) for n in (left, right)
    )
    strict = {left.name in ('<', '>'), right.name in ('<', '>')}
    if left.name in _ORDER and right.name in _ORDER:
      factor = proportion(a, b) if len(strict) == 1 else None
      turned = _ORDER[left.name] * _ORDER[right.name]
      return factor is not None and factor * turned > 0
    if left.name == right.name and left.name in ('=', r'\ne'):
      return proportion(a, b) is not None
  return _same_structure(left, right)


def _unnamed(node: Node) -> tuple[Node | None, Node]:
  """Returns the name that an answer is given, and the answer: x, 5 for x = 5.

  A chain counts only if its later sides agree: 'x = 6/2 = 3', not '5 = 6'.
  """
  if node.kind == 'list' and node.name != 'and':
    return _unnamed_list(node)
  if node.kind != 'relation' or set(node.name.split()) - {'=', r'\in'}:
    return None, node
  first, *rest = node.parts
  if not _is_name(first):
    if len(rest) == 1 and _is_name(rest[0]) and '=' in node.name:
      return rest[0], first
    if any(map(names, node.parts)):
      return None, node
    rest, first = list(node.parts), None
  if not all(_equal(a, b) for a, b in itertools.pairwise(rest)):
    return None, node
  return first, rest[-1]


def _unnamed_list(node: Node) -> tuple[Node | None, Node]:
  name, value = _unnamed(node.parts[0])
  if name is None or any(part.kind == 'relation' for part in node.parts[1:]):
    return None, node
  return name, Node('list', (value, *node.parts[1:]), node.name)  # x = 1, 3


def _renamed(name: Node | None, node: Node) -> Node:
  return node if name is None else Node('relation', (name, node), '=')


def _is_name(node: Node) -> bool:
  """Returns whether a left side names what is on the right: x, AB, f(2)."""
  if node.kind in ('tuple', 'ratio'):
    return all(map(_is_name, node.parts))
  if node.kind == 'power':  # f^{-1}
    return node.parts[0].kind == 'name' and node.parts[1].kind == 'negate'
  if node.kind == 'multiply':
    first, second = node.parts
    return _is_name(first) and (second.kind == 'number' or _is_name(second))
  if node.kind in ('absolute', 'divide'):  # Of segments: |AB|, AB/CD.
    return all(map(_is_segment, node.parts))
  return node.kind == 'name'


def _is_segment(node: Node) -> bool:
  pair = node.parts if node.kind == 'multiply' else ()
  return len(pair) == 2 and all(
    part.kind == 'name' and part.name[0].isupper() for part in pair
  )


def _names_agree(left: Node, right: Node) -> bool:
  """Returns whether two names may be of one thing: y and f(x), but not x, n."""
  return left == right or {left.kind, right.kind} == {'name', 'multiply'}


def _minus(node: Node) -> Node:
  return Node('negate', (node,))


def _expanded(node: Node) -> Node:
  r"""Returns a tree without ±: the list of both answers that it stands for."""
  if not _has_sign(node):
    return node
  if node.kind in ('list', 'set'):
    parts = []
    for part in node.parts:
      part = _expanded(part)
      parts += part.parts if part.kind == 'list' else (part,)
    return Node(node.kind, tuple(parts), node.name)
  return Node('list', (_signed(node, r'\pm'), _signed(node, r'\mp')), ',')


def _has_sign(node: Node) -> bool:
  return node.kind == 'sign' or any(map(_has_sign, node.parts))


def _signed(node: Node, positive: str) -> Node:
  parts = tuple(_signed(part, positive) for part in node.parts)
  if node.kind == 'sign':
    return parts[0] if node.name == positive else _minus(parts[0])
  return Node(node.kind, parts, node.name, node.value)
