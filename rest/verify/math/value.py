"""Decides whether two expressions have the same value.

Numbers are exact fractions while they can be; roots and functions are computed
to at least 120 digits. Expressions in variables are compared at fixed points,
where equality by accident is out of the question. There is no tolerance that an
approximation could hide in, and no step whose cost the text could blow up.
"""

import math
import random
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import mpmath

from rest.verify.math.parse import Node

_DIGITS = 120
_MOST_DIGITS = 600
_BITS = 40_000  # Of an exact number, above which it is computed as a float.
_EXPONENT = 1 << 26  # Bits of the exponent of a float.
_SCALAR_KINDS = (
  'number name constant add multiply divide negate power root call factorial'
  ' binomial absolute floor ceil degrees'
)
_SCALARS = frozenset(_SCALAR_KINDS.split())

Number = Any  # Fraction, mpf or mpc; mpmath has no types.


class Undefined(ArithmeticError):
  """An expression has no value at a point, or none within the limits."""


def is_scalar(node: Node) -> bool:
  """Returns whether a tree is an expression rather than a structure."""
  return node.kind in _SCALARS and all(map(is_scalar, node.parts))


def names(node: Node) -> set[str]:
  """Returns the variables of a tree."""
  found = {node.name} if node.kind == 'name' else set()
  return found.union(*map(names, node.parts))


def same(left: Node, right: Node) -> bool:
  """Returns whether two expressions are equal wherever both have a value."""
  found = False
  for pair in pairs(left, right):
    found = True
    if not values_equal(*pair):
      return False
  return found


def is_rounded(decimal: Node, exact: Node) -> bool:
  """Returns whether a decimal is what rounding an exact value may give."""
  if decimal.kind == 'negate':
    decimal, exact = decimal.parts[0], Node('negate', (exact,))
  value = Value.at(exact, {})
  if decimal.kind != 'number' or value is None or not value.is_real:
    return False
  places = _places(decimal.value)
  error = abs(_float(value.number) - _float(decimal.value))
  return bool(error <= mpmath.mpf(10) ** -places)


def _places(number: Fraction) -> int:
  """Returns how many digits are behind the point; 0 if they have no end."""
  rest, twos, fives = number.denominator, 0, 0
  while rest % 2 == 0:
    rest, twos = rest // 2, twos + 1
  while rest % 5 == 0:
    rest, fives = rest // 5, fives + 1
  return max(twos, fives) if rest == 1 else 0


def pairs(left: Node, right: Node) -> Iterator[tuple['Value', 'Value']]:
  """Yields the values of two expressions at the points where both have one."""
  variables = sorted(names(left) | names(right))
  for point in _points(variables) if variables else [{}]:
    x = Value.at(left, point, left, right)
    y = x and Value.at(right, point, left, right)
    if x and y:
      yield x, y


class Value:
  """The value of an expression at a point, to some number of digits."""

  def __init__(self, node: Node, point: dict[str, Fraction], *others: Node):
    self._node, self._point = node, point
    self._complex = any(map(_is_complex, (node, *others)))
    size = sum(map(_digits, (node, *others)))
    self.digits = min(_DIGITS + 2 * size, _MOST_DIGITS)
    self.number = self.to_digits(self.digits)

  @classmethod
  def at(
    cls, node: Node, point: dict[str, Fraction], *others: Node
  ) -> 'Value | None':
    """Returns the value of an expression at a point, if it has one there."""
    try:
      return cls(node, point, *others)
    except (Undefined, ZeroDivisionError, OverflowError):
      return None

  @property
  def is_real(self) -> bool:
    """Whether it can be ordered."""
    return not isinstance(self.number, mpmath.mpc)

  def to_digits(self, digits: int) -> Number:
    with mpmath.workdps(digits):
      return _Evaluator(self._point, self._complex).value(self._node)

  @property
  def is_zero(self) -> bool:
    """Whether it is 0: exactly, or to however many digits it is computed."""
    if not self.number or isinstance(self.number, Fraction):
      return not self.number
    if abs(self.number) > mpmath.mpf(10) ** -30:
      return False
    finer = self.to_digits(2 * self.digits)
    return abs(finer) < abs(self.number) / 10**10 or not finer


def values_equal(left: Value, right: Value) -> bool:
  """Returns whether two values are the same number."""
  x, y = left.number, right.number
  if isinstance(x, Fraction) and isinstance(y, Fraction):
    return x == y
  if left.is_zero or right.is_zero:
    return left.is_zero and right.is_zero
  with mpmath.workdps(left.digits):
    x, y = _float(x), _float(y)
    tolerance = mpmath.mpf(10) ** -(min(left.digits, right.digits) * 2 // 3)
    return bool(abs(x - y) <= tolerance * max(abs(x), abs(y)))


def less(left: Value, right: Value) -> bool:
  """Returns whether one real value is below another."""
  return bool(_float(left.number) < _float(right.number))


def proportion(left: Node, right: Node) -> Any:
  """Returns the constant c other than 0 with left = c right, or None."""
  first: Number | None = None
  found = [p for p in pairs(left, right) if not p[1].is_zero]
  for x, y in found:
    if x.is_zero:
      return None
    with mpmath.workdps(x.digits):
      ratio = _apply(lambda a, b: a / b, x.number, y.number)
      if first is None:
        first = ratio
      error = abs(_float(ratio) - _float(first))
      if error > abs(_float(first)) * mpmath.mpf(10) ** -(x.digits // 2):
        return None
  if len(found) < 3 or isinstance(first, mpmath.mpc):
    return None
  return first


def _points(variables: list[str]) -> list[dict[str, Fraction]]:
  """Returns points with positive, mixed, integer and small coordinates."""
  draw = random.Random(0)
  ranges = [(97, 307), (101, 211), (11, 89), (-97, 97), (-211, 211), (-53, 53)]
  points = [
    {v: Fraction(draw.randint(a, b) * 2 + 1, 206) for v in variables}
    for a, b in ranges
  ]
  for most in (7, 13):
    points.append({v: Fraction(draw.randint(1, most)) for v in variables})
  return points


class _Evaluator:
  """Computes an expression at a point, to the digits that mpmath is set to."""

  def __init__(self, point: dict[str, Fraction], complex_: bool):
    self._point = point
    self._complex = complex_
    self._in_angle = False

  def value(self, node: Node) -> Number:
    if node.kind == 'number':
      return node.value
    if node.kind == 'name':
      return self._point[node.name]
    if node.kind == 'constant':
      return self._constant(node.name)
    if node.kind == 'call':
      return self._call(node)
    parts = [self.value(part) for part in node.parts]
    return self._checked(getattr(self, '_' + node.kind)(*parts))

  def _checked(self, number: Number) -> Number:
    if isinstance(number, Fraction):
      return number if _bits(number) <= _BITS else _float(number)
    if isinstance(number, mpmath.mpc):
      if not self._complex:
        raise Undefined('not real')
      return number
    if not mpmath.isfinite(number) or abs(mpmath.mag(number or 1)) > _EXPONENT:
      raise Undefined('too large')
    return number

  def _constant(self, name: str) -> Number:
    if name == r'\pi':
      return +mpmath.pi
    if name == 'e':
      return +mpmath.e
    if name == 'i':
      return mpmath.mpc(0, 1)
    raise Undefined(name)

  def _add(self, *terms: Number) -> Number:
    total, *rest = terms
    for term in rest:
      total = _apply(lambda x, y: x + y, total, term)
    return total

  def _multiply(self, x: Number, y: Number) -> Number:
    return _apply(lambda x, y: x * y, x, y)

  def _divide(self, x: Number, y: Number) -> Number:
    return _apply(lambda x, y: x / y, x, y)

  def _negate(self, x: Number) -> Number:
    return -x

  def _power(self, base: Number, exponent: Number) -> Number:
    if not base:
      if isinstance(exponent, mpmath.mpc) or exponent <= 0:
        raise Undefined('0 to a power that is not positive')
      return Fraction(0)
    # Bounds the result's exponent before anything is computed.
    if abs(exponent) * abs(mpmath.mag(_float(base)) + 1) > _EXPONENT:
      raise Undefined('too large')
    if not isinstance(exponent, Fraction):
      return mpmath.power(_float(base), exponent)
    top, bottom = exponent.numerator, exponent.denominator
    if bottom != 1:
      base = self._root(Fraction(bottom), base)
    if isinstance(base, Fraction) and abs(top) * _bits(base) <= _BITS:
      return base**top
    return mpmath.power(_float(base), top)

  def _root(self, index: Number, x: Number) -> Number:
    if not isinstance(index, Fraction) or index.denominator != 1 or index < 1:
      raise Undefined('a root of such an index')
    n = index.numerator
    if n > 1000:
      raise Undefined('too large')
    if not isinstance(x, mpmath.mpc) and x < 0:
      if n % 2:  # The real one, as schools have it.
        return -self._root(index, -x)
      return mpmath.root(mpmath.mpc(_float(x)), n)
    if isinstance(x, Fraction):
      top, bottom = _exact_root(x.numerator, n), _exact_root(x.denominator, n)
      if top is not None and bottom is not None:
        return Fraction(top, bottom)
    return mpmath.root(_float(x), n)

  def _factorial(self, x: Number) -> Number:
    n = _natural(x, 100_000)
    return Fraction(math.factorial(n)) if n <= 3000 else mpmath.factorial(n)

  def _binomial(self, n: Number, k: Number) -> Number:
    return Fraction(math.comb(_natural(n, 3000), _natural(k, 3000)))

  def _absolute(self, x: Number) -> Number:
    return abs(x)

  def _floor(self, x: Number) -> Number:
    return Fraction(math.floor(_real(x)))

  def _ceil(self, x: Number) -> Number:
    return Fraction(math.ceil(_real(x)))

  def _degrees(self, x: Number) -> Number:
    return _float(x) * mpmath.pi / 180 if self._in_angle else x

  def _call(self, node: Node) -> Number:
    outer = self._in_angle
    self._in_angle = node.name in _ANGLE
    x, *base = (_float(self.value(part)) for part in node.parts)
    self._in_angle = outer
    function = _FUNCTIONS.get(node.name)
    if function is None or (base and node.name != 'log'):
      raise Undefined(node.name)
    if not isinstance(x, mpmath.mpc) and abs(x) > 10**9:
      raise Undefined('too large')
    value = function(x)
    if node.name == 'log':
      value /= mpmath.log(base[0] if base else 10)
    return self._checked(value)


_ANGLE = ('sin', 'cos', 'tan', 'sec', 'csc', 'cot')
_FUNCTIONS: dict[str, Callable] = {
  name: getattr(mpmath, name)
  for name in (*_ANGLE, 'sinh', 'cosh', 'tanh', 'exp', 'log')
} | {
  'ln': mpmath.log,
  'lg': lambda x: mpmath.log(x) / mpmath.log(10),
  'arcsin': mpmath.asin,
  'arccos': mpmath.acos,
  'arctan': mpmath.atan,
}


def _apply(operation: Callable, x: Number, y: Number) -> Number:
  if isinstance(x, Fraction) and isinstance(y, Fraction):
    return operation(x, y)
  return operation(_float(x), _float(y))


def _float(x: Number) -> Any:
  if isinstance(x, Fraction):
    return mpmath.mpf(x.numerator) / x.denominator
  return x


def _real(x: Number) -> Number:
  if isinstance(x, mpmath.mpc) or mpmath.mag(_float(x) or 1) > 200:
    raise Undefined('not a real number of moderate size')
  return x


def _natural(x: Number, most: int) -> int:
  if not isinstance(x, Fraction) or x.denominator != 1 or not 0 <= x <= most:
    raise Undefined('not a natural number of moderate size')
  return x.numerator


def _bits(x: Fraction) -> int:
  return x.numerator.bit_length() + x.denominator.bit_length()


def _exact_root(x: int, n: int) -> int | None:
  if n == 2:
    root = math.isqrt(x)
  else:
    root = int(mpmath.nint(mpmath.root(x, n))) if x.bit_length() < 300 else 0
  return root if root**n == x else None


def _digits(node: Node) -> int:
  own = len(str(node.value)) if node.kind == 'number' else 0
  return own + sum(map(_digits, node.parts))


def _is_complex(node: Node) -> bool:
  """Returns whether an expression speaks of complex numbers."""
  return (node.kind, node.name) == ('constant', 'i') or any(
    map(_is_complex, node.parts)
  )
