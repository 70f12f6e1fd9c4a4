r"""Reads a cleaned answer into a tree.

The grammar is that of answers, not of mathematics: numbers, expressions,
relations, points, intervals, sets, lists, matrices. It is read in one pass,
without backtracking, to a bounded depth. What is not in it is Unreadable.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

from rest.verify.math.clean import ROW
from rest.verify.math.lex import FUNCTIONS, Token, Unreadable, tokens

_DEPTH = 40

RELATIONS = ('=', '<', '>', r'\le', r'\ge', r'\ne', r'\in')
_SET_OPERATIONS = {
  r'\cup': 'union', r'\cap': 'intersection', r'\setminus': 'without'
}  # fmt: skip
_CONNECTORS = (',', ';', 'and', 'or')
_CLOSING = {'(': (')', ']'), '[': (')', ']'), r'\{': (r'\}',), '{': ('}',),
            r'\langle': (r'\rangle',)}  # fmt: skip
_GREEK_NAMES = (
  r'\alpha \beta \gamma \delta \epsilon \varepsilon \zeta \eta \theta \kappa'
  r' \lambda \mu \nu \xi \rho \sigma \tau \phi \chi \psi \omega \Gamma \Delta'
  r' \Theta \Lambda \Sigma \Phi \Psi \Omega \ell \hbar \vartheta'
)
_GREEK = frozenset(_GREEK_NAMES.split())
_DECORATIONS = (r'\overline', r'\hat', r'\widehat', r'\tilde', r'\angle',
                r'\triangle', r'\mathbb', r'\overset', r'\dot')  # fmt: skip
_IF = ('"if"', '"for"', '"when"')  # Before a condition.
_MATRICES = ('matrix', 'pmatrix', 'bmatrix', 'Bmatrix', 'smallmatrix', 'array',
             'cases')  # fmt: skip


@dataclass(frozen=True, slots=True)
class Node:
  """A part of an answer.

  Attributes:
    kind: What it is: 'number', 'name', 'constant', 'add', 'multiply', 'divide',
      'negate', 'power', 'root' (index, radicand), 'call', 'factorial',
      'binomial', 'absolute', 'floor', 'ceil', 'degrees', 'sign' (of a ±),
      'tuple', 'set', 'list', 'union', 'intersection', 'without', 'matrix',
      'row', 'relation', 'based', 'ratio'.
    parts: What it is made of.
    name: The variable, function, relation signs, brackets or digits.
    value: Of a number; the base of 'based'.
  """

  kind: str
  parts: 'tuple[Node, ...]' = ()
  name: str = ''
  value: Fraction = Fraction(0)


def parse(answer: str) -> Node:
  """Returns the tree of a cleaned answer.

  Raises:
    Unreadable: It is not in the grammar.
  """
  parser = _Parser(tokens(answer))
  node = parser.items()
  if parser.position < len(parser.tokens):
    raise Unreadable(f'{parser.tokens[parser.position].text!r}')
  return node


class _Parser:
  """Recursive descent; each method reads what it is named after."""

  def __init__(self, found: list[Token]):
    self.tokens = found
    self.position = 0
    self.depth = 0
    self.in_bars = False

  def peek(self, ahead: int = 0) -> str:
    """Returns the text of a sign, or the kind of another token in <>."""
    if self.position + ahead >= len(self.tokens):
      return ''
    token = self.tokens[self.position + ahead]
    return token.text if token.kind == 'sign' else f'<{token.kind}>'

  def take(self, *signs: str) -> str:
    """Skips one of these signs and returns it, or returns ''."""
    sign = self.peek()
    if sign in signs:
      self.position += 1
      return sign
    return ''

  def expect(self, *signs: str) -> str:
    sign = self.take(*signs)
    if not sign:
      raise Unreadable(f'no {signs} at {self.peek()!r}')
    return sign

  def items(self) -> Node:
    """A list, or its only item."""
    items = [self.relation()]
    joined = set()
    while sign := self.take(*_CONNECTORS):
      joined.add(sign)
      while sign := self.take(*_CONNECTORS):  # ', and'
        joined.add(sign)
      items.append(self.relation())
    if len(items) == 1:
      return items[0]
    words = joined & {'and', 'or'}
    return Node('list', tuple(items), words.pop() if len(words) == 1 else ',')

  def relation(self) -> Node:
    sides = [self.ratio()]
    signs = []
    while sign := self.take(*RELATIONS):
      signs.append(sign)
      sides.append(self.ratio())
    if not signs:
      return sides[0]
    return Node('relation', tuple(sides), ' '.join(signs))

  def ratio(self) -> Node:
    sides = [self.union()]
    while self.depth == 0 and self.take(':'):
      sides.append(self.sum())
    return sides[0] if len(sides) == 1 else Node('ratio', tuple(sides))

  def union(self) -> Node:
    node = self.sum()
    while sign := self.take(*_SET_OPERATIONS):
      node = Node(_SET_OPERATIONS[sign], (node, self.sum()))
    return node

  def sum(self) -> Node:
    terms = []
    while True:
      sign = self.take('+', '-', r'\pm', r'\mp')
      if terms and not sign:
        break
      term = self.product()
      if sign == '-':
        term = Node('negate', (term,))
      elif sign in (r'\pm', r'\mp'):
        term = Node('sign', (term,), sign)
      terms.append(term)
    return terms[0] if len(terms) == 1 else Node('add', tuple(terms))

  def product(self) -> Node:
    node = self.power()
    while True:
      if self.take(r'\cdot'):
        node = Node('multiply', (node, self.factor()))
      elif self.take('/'):
        node = Node('divide', (node, self.factor()))
      elif self.starts_atom():
        if self.peek() == '<number>' and node.kind == 'number':
          raise Unreadable('two numbers side by side')
        node = Node('multiply', (node, self.power()))
      else:
        return node

  def factor(self) -> Node:
    """A factor behind an operator, which may have a sign."""
    if self.take('-'):
      return Node('negate', (self.factor(),))
    return self.power()

  def power(self) -> Node:
    node = self.atom()
    while True:
      if self.peek() == '^' and self.peek(1) == r'\circ':
        self.position += 2
        node = Node('degrees', (node,))
      elif self.take('^'):
        sign = self.take('-')
        exponent = self.argument(whole=True)
        if self.peek() == '^':
          raise Unreadable('a tower of powers')
        if sign:
          exponent = Node('negate', (exponent,))
        node = Node('power', (node, exponent))
      elif self.take('!'):
        node = Node('factorial', (node,))
      else:
        return node

  def starts_atom(self) -> bool:
    sign = self.peek()
    if sign == '|':
      return not self.in_bars
    return (
      sign in ('<number>', '<repeating>', '<based>', '<name>', '<begin>')
      or sign in ('(', '[', '{', r'\frac', r'\sqrt', r'\pi', r'\binom')
      or sign in (r'\lfloor', r'\lceil', r'\infty')
      or sign in _GREEK
      or sign in _DECORATIONS
      or sign[1:] in FUNCTIONS
    )

  def atom(self) -> Node:
    self.depth += 1
    if self.depth > _DEPTH:
      raise Unreadable('too deep')
    node = self._atom()
    self.depth -= 1
    return node

  def _atom(self) -> Node:
    if self.position >= len(self.tokens):
      raise Unreadable('ends early')
    token = self.tokens[self.position]
    self.position += 1
    if token.kind == 'number':
      return self.mixed(Node('number', value=Fraction(token.text)))
    if token.kind == 'repeating':
      return Node('number', value=_repeating(token.text))
    if token.kind == 'based':
      digits, base = token.text.split('_')
      return Node('based', name=digits, value=Fraction(base.strip('{} ')))
    if token.kind == 'name':
      return self.name(token.text)
    if token.kind == 'begin':
      return self.matrix(token.text)
    sign = token.text
    if sign in ('(', '[', r'\langle', r'\{', '{'):
      return self.bracket(sign)
    if sign in _GREEK or sign in _DECORATIONS:
      return self.name(sign)
    if sign in (r'\pi', r'\infty', r'\emptyset'):
      return Node('constant', name=sign)
    if sign[1:] in FUNCTIONS:
      return self.call(sign[1:])
    return self.command(sign)

  def command(self, sign: str) -> Node:
    if sign == r'\frac':
      return Node('divide', (self.argument(), self.argument()))
    if sign == r'\binom':
      return Node('binomial', (self.argument(), self.argument()))
    if sign == r'\sqrt':
      index = Node('number', value=Fraction(2))
      if self.take('['):
        index = self.sum()
        self.expect(']')
      return Node('root', (index, self.argument(whole=True)))
    if sign == '|':
      outer, self.in_bars = self.in_bars, True
      node = Node('absolute', (self.sum(),))
      self.expect('|')
      self.in_bars = outer
      return node
    for kind in ('floor', 'ceil'):
      if sign == rf'\l{kind}':
        node = Node(kind, (self.sum(),))
        self.expect(rf'\r{kind}')
        return node
    raise Unreadable(f'{sign!r}')

  def argument(self, whole: bool = False) -> Node:
    r"""An argument of a command: a group, or one character as in `\frac12`."""
    if self.take('{'):
      outer, self.in_bars = self.in_bars, False
      node = self.sum()
      self.expect('}')
      self.in_bars = outer
      return node
    if self.peek() == '<number>':
      token = self.tokens[self.position]
      if token.text.isdigit() and len(token.text) > 1 and not whole:
        self.tokens[self.position] = Token('number', token.text[1:])
        return Node('number', value=Fraction(token.text[0]))
      self.position += 1
      return Node('number', value=Fraction(token.text))
    return self.atom()

  def mixed(self, whole: Node) -> Node:
    """A number, with the fraction of a mixed number behind it."""
    start = self.position
    if whole.value.denominator != 1 or self.peek() not in (
      r'\frac',
      '<number>',
    ):
      return whole
    if self.take(r'\frac'):
      part = Node('divide', (self.argument(), self.argument()))
    else:
      part = self.slashed()
    if part and all(p.kind == 'number' for p in part.parts):
      above, below = (p.value for p in part.parts)
      if 0 < above < below and above.denominator == below.denominator == 1:
        return Node('number', value=whole.value + above / below)
    if self.tokens[start].text != r'\frac':
      raise Unreadable('two numbers side by side')
    return Node('multiply', (whole, part)) if part else whole

  def slashed(self) -> Node | None:
    """A fraction written '1/4'."""
    if self.peek(1) != '/' or self.peek(2) != '<number>':
      return None
    above, _, below = self.tokens[self.position : self.position + 3]
    self.position += 3
    parts = (Fraction(above.text), Fraction(below.text))
    return Node('divide', tuple(Node('number', value=v) for v in parts))

  def name(self, name: str) -> Node:
    """A variable with its subscript and primes, or e or i."""
    if name in _DECORATIONS:
      start = self.position
      self.argument()
      name += ''.join(t.text for t in self.tokens[start : self.position])
    if self.take('_'):
      start = self.position
      self.argument(whole=True)
      index = ''.join(t.text for t in self.tokens[start : self.position])
      name += '_' + index.strip('{}')
    while self.take("'"):
      name += "'"
    return Node('constant' if name in ('e', 'i') else 'name', name=name)

  def call(self, function: str) -> Node:
    base = power = None
    if self.take('_'):
      base = self.argument()
    if self.take('^'):
      power = self.argument(whole=True)
    if base is None and self.take('_'):
      base = self.argument()
    if self.peek() in ('(', '{', '['):
      argument = self.atom()
      arguments = argument.parts if argument.kind == 'tuple' else (argument,)
    else:
      node = self.power()
      while self.starts_atom() and self.peek()[1:] not in FUNCTIONS:
        node = Node('multiply', (node, self.power()))
      arguments = (node,)
    if base is not None:
      arguments += (base,)
    if power == Node('negate', (Node('number', value=Fraction(1)),)):
      return Node('call', arguments, 'arc' + function)
    node = Node('call', arguments, function)
    return node if power is None else Node('power', (node, power))

  def bracket(self, opening: str) -> Node:
    if opening == r'\{' and self.take(r'\}'):
      return Node('set')
    outer = self.in_bars
    self.in_bars = opening == r'\{'  # There, a bar may start a condition.
    node = self.items()
    if opening == r'\{' and self.take('|', ':'):
      node = self.items()  # {x | x > 3}
      if node.kind != 'relation':
        raise Unreadable('a set without a condition')
      self.expect(r'\}')
      self.in_bars = outer
      return node
    closing = self.expect(*_CLOSING[opening])
    self.in_bars = outer
    parts = node.parts if node.kind == 'list' and node.name == ',' else (node,)
    if opening == r'\{':
      return Node('set', parts)
    if len(parts) == 1 and opening != r'\langle':
      if (opening, closing) in (('(', ']'), ('[', ')')):
        raise Unreadable('brackets that do not match')
      return node
    return Node('tuple', parts, opening + closing)

  def matrix(self, kind: str) -> Node:
    if kind not in _MATRICES:
      raise Unreadable(f'a {kind}')
    rows: list[Node] = []
    row = [self.cell()]
    while sign := self.take('&', ROW):
      if sign == ROW:
        rows.append(Node('row', tuple(row)))
        row = []
        if self.peek() == '<end>':
          break
      row.append(self.cell())
    rows += [Node('row', tuple(row))] if row else []
    self.expect('<end>')
    return Node('set' if kind == 'cases' else 'matrix', tuple(rows))

  def cell(self) -> Node:
    """A number of a matrix; of cases, a value or its condition."""
    if self.peek() == '<name>' and self.tokens[self.position].text in _IF:
      self.position += 1
    node = self.relation()
    self.take(',')
    return node


def _repeating(text: str) -> Fraction:
  match = re.fullmatch(r'(\d*)\.(\d*)\\overline\s*\{(\d+)\}', text)
  assert match
  whole, start, again = match.groups()
  tail = Fraction(int(again), 10 ** len(again) - 1) / 10 ** len(start)
  return Fraction(f'{whole or 0}.{start or 0}') + tail
