"""Reads a script of assertions as calls with values, where it is no more.

  read('assert add(1, 2) == 3')
  (Case('add', arguments=[1, 2], check='equal', wanted=3),)

It evaluates literals, arithmetic, and a few pure builtins; it unrolls loops
over them, as EvalPlus writes them, and knows the helpers of EvalPlus by their
words. A script that says anything else is not read at all (`tester` runs it):
one, too, that looks again at what the program was given and may have changed.

Stops: all that tests in the reach of a program suffer, for most published sets.
Does not stop: what it cannot read, and leaves to `tester`.
"""

import ast
import builtins
import functools
import itertools
import math
import operator
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

from rest.verify.program import evalplus, script
from rest.verify.program.cases import Case

_MAX_SCRIPT = 4 << 20  # Characters; results of more might not fit a file.
_MAX_POWER = 10_000
_MAX_ITEMS = 100_000
_CACHED = 32  # Scripts; many programs are judged by one.
_parsing = threading.Lock()  # Python 3.11 counts its depth for all threads.


class _Other(ValueError):
  """The script says something that is no case."""


@functools.lru_cache(_CACHED)
def read(text: str, entry_point: str = '') -> tuple[Case, ...]:
  """Returns the cases that a script consists of; none if it says more."""
  if len(text) > _MAX_SCRIPT:
    return ()
  try:
    with _parsing:
      reader = _Reader(text, entry_point)
    return tuple(reader.read())
  except (
    ArithmeticError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
    SyntaxError,
  ):
    return ()


# Functions of tests that are pure, by name.
_PURE: dict[str, Callable] = {
  kind.__name__: kind
  for kind in (
    abs, bool, complex, dict, divmod, enumerate, float, frozenset, int, len,
    list, max, min, range, reversed, round, set, sorted, str, sum, tuple, zip,
  )
}  # fmt: skip
_NO_VIEWS = {'complex', 'divmod', 'enumerate', 'range', 'reversed', 'zip'}
_VIEWS = _PURE.keys() - _NO_VIEWS  # Those that a result may go through.
_OPERATORS: dict[type, Callable] = {
  ast.Add: operator.add,
  ast.Sub: operator.sub,
  ast.Mult: operator.mul,
  ast.Div: operator.truediv,
  ast.FloorDiv: operator.floordiv,
  ast.Mod: operator.mod,
  ast.Pow: operator.pow,
  ast.USub: operator.neg,
  ast.UAdd: operator.pos,
  ast.Invert: operator.inv,
  ast.Not: operator.not_,
}
_UNKNOWN = object()
_NUMBERS = {int, float, bool, complex}
_DATA = {
  *_NUMBERS, str, bytes, list, tuple, set, frozenset, dict, type(None)
}  # fmt: skip
_CHECKS: dict[type, str] = {
  ast.Eq: 'equal',
  ast.NotEq: 'differs',
  ast.Is: 'is',
}
_IMPORTED: dict[str, dict[str, Any]] = {
  'math': {
    'inf': math.inf, 'nan': math.nan, 'pi': math.pi, 'e': math.e,
    'isclose': 'isclose', 'fabs': abs,
  },
  'numpy': {'inf': math.inf, 'nan': math.nan, 'pi': math.pi},
  'typing': dict.fromkeys(
    ('Any', 'Dict', 'List', 'Optional', 'Set', 'Tuple'), _UNKNOWN
  ),
}  # fmt: skip


class _Reader:
  """Reads statements in their order, as they would run.

  Invariant: a case that is yielded says what its statement asserts, no less and
  no more; in doubt, `_Other`. So no value of the program is ever used, none
  that it may have changed, and no builtin that the script binds anew.
  """

  def __init__(self, text: str, entry_point: str):
    self._tree = ast.parse(text)
    self._entry_point = entry_point
    self._bound = script.names(text)[1]
    self._values: dict[str, Any] = {}
    self._modules: dict[str, str] = {}
    self._helpers: dict[str, str] = {}
    self._parameter = ''  # What `check` calls the function under test.
    # What the program was given, and may have changed.
    self._given: dict[int, Any] = {}

  def read(self) -> Iterator[Case]:
    """Yields the cases.

    Raises:
      _Other: The script says something else.
    """
    body = self._tree.body
    checks = [
      node
      for node in body
      if isinstance(node, ast.FunctionDef) and node.name == 'check'
    ]
    yield from self._run(node for node in body if node not in checks)
    if checks and self._entry_point:
      check = checks[-1]
      if len(check.args.args) != 1 or len(checks) > 1:
        raise _Other
      self._parameter = check.args.args[0].arg
      yield from self._run(check.body)

  def _run(self, nodes: Iterable[ast.stmt]) -> Iterator[Case]:
    """Yields the cases of statements, and binds the names that they assign.

    Example: `for x, y in [(1, 2), (3, 4)]: assert f(x) == y` yields Case('f',
    [1], check='equal', wanted=2), and so for 3 and 4."""
    for node in nodes:
      match node:
        case ast.Assert(test=test):
          yield from self._assertion(test)
        case ast.For(target=target, iter=over, body=body, orelse=[]):
          for item in itertools.islice(self._value(over), _MAX_ITEMS):
            self._assign(target, item)
            yield from self._run(body)
        case ast.Expr(value=ast.Call(func=ast.Name(id=name)) as call) if (
          name in self._helpers
        ):
          yield self._helped(self._helpers[name], call.args)
        case ast.Assign(targets=[ast.Name() as target], value=value):
          self._assign(target, self._value(value))
        case ast.FunctionDef(name=name):
          if (said := ast.dump(node)) in evalplus.HELPERS:
            self._helpers[name] = evalplus.HELPERS[said]
        case ast.Import(names=aliases):
          for alias in aliases:
            self._modules[alias.asname or alias.name] = alias.name
            _IMPORTED[alias.name]
        case ast.ImportFrom(module=str(module), names=aliases):
          for alias in aliases:
            value = _IMPORTED[module][alias.name]
            self._values[alias.asname or alias.name] = value
        case ast.Pass() | ast.Expr(value=ast.Constant()):
          pass
        case _:
          raise _Other

  def _assign(self, target: ast.expr, value: Any) -> None:
    match target:
      case ast.Name(id=name):
        self._values[name] = value
      case ast.Tuple(elts=parts):
        for part, item in zip(parts, value, strict=True):
          self._assign(part, item)
      case _:
        raise _Other

  def _assertion(self, test: ast.expr) -> Iterator[Case]:
    """Yields the cases that an assertion consists of.

    Invariant: exactly one side asks the program; what asks it nothing must hold
    by itself. Example: `sorted(f(2)) == [1] and not g()` is Case('f', [2],
    views=(('sorted', []),), check='equal', wanted=[1]) and Case('g', [],
    check='false').
    """
    match test:
      case ast.BoolOp(op=ast.And(), values=parts):
        for part in parts:
          yield from self._assertion(part)
        return
      case ast.UnaryOp(op=ast.Not(), operand=operand):
        if case := self._call(operand):
          yield replace(case, check='false')
          return
      case ast.Compare(left=left, ops=[ast.Lt() | ast.LtE()], comparators=[x]):
        yield self._near(left, self._value(x), type(test.ops[0]) is ast.Lt)
        return
      case ast.Compare(left=left, ops=[op], comparators=[right]):
        case, other = self._call(left), right
        if not case:
          case, other = self._call(right), left
        if case and type(op) in _CHECKS:
          check, wanted = _CHECKS[type(op)], self._value(other)
          if check == 'is' and wanted not in (None, True, False):
            raise _Other
          yield replace(case, check=check, wanted=wanted)
          return
      case ast.Call(func=function) if self._named(function) == 'isclose':
        yield self._isclose(test)
        return
      case _:
        if case := self._call(test):
          yield case
          return
    if not self._value(test):
      raise _Other  # Whatever the program does; let the script say so.

  def _near(self, distance: ast.expr, most: float, below: bool) -> Case:
    """Reads `abs(f(x) - value) < most`."""
    match distance:
      case ast.Call(
        func=function,
        args=[ast.BinOp(left=left, op=ast.Sub(), right=right)],
        keywords=[],
      ) if self._named(function) is abs:
        case, other = self._call(left), right
        if not case:
          case, other = self._call(right), left
        if case:
          most = math.nextafter(most, -math.inf) if below else most
          wanted = self._value(other)
          return replace(
            case, check='near', wanted=wanted, tolerance=(0.0, most)
          )
    raise _Other

  def _isclose(self, call: ast.Call) -> Case:
    """Reads `math.isclose(f(x), value, rel_tol=...)`."""
    left, right = call.args
    case, other = self._call(left), right
    if not case:
      case, other = self._call(right), left
    if not case:
      raise _Other
    given = {x.arg: self._value(x.value) for x in call.keywords}
    tolerance = given.pop('rel_tol', 1e-9), given.pop('abs_tol', 0.0)
    if given:
      raise _Other
    wanted = self._value(other)
    return replace(case, check='isclose', wanted=wanted, tolerance=tolerance)

  def _helped(self, kind: str, arguments: list[ast.expr]) -> Case:
    """Reads `assertion(f(x), value, tolerance)` of EvalPlus."""
    out, expected, tolerance = arguments
    case = self._call(out)
    if case and kind == 'found':
      return replace(case, check='found', wanted=self._value(expected))
    if not case or not kind or 'is_floats' not in self._helpers:
      raise _Other
    wanted, absolute = self._value(expected), self._value(tolerance)
    if kind == 'set':
      views = (*case.views, ('set', []))
      return replace(case, views=views, check='equal', wanted=set(wanted))
    parts = wanted if type(wanted) in (list, tuple) else [wanted]
    if absolute == 0 and all(type(x) is float for x in parts):
      absolute = 1e-6
    if absolute == 0:
      return replace(case, check='equal', wanted=wanted)
    return replace(
      case, check='close', wanted=wanted, tolerance=(1e-7, absolute)
    )

  def _call(self, node: ast.expr) -> Case | None:
    """Reads a call of the program, perhaps in builtins such as `sorted`."""
    match node:
      case ast.Call(func=ast.Name(id=name), args=arguments, keywords=named):
        if self._is_of_program(name):
          given = [x for part in arguments for x in self._argument(part)]
          by_name = {str(x.arg): self._value(x.value) for x in named}
          if any(x.arg is None for x in named):
            raise _Other
          self._give([*given, *by_name.values()])
          return (
            Case(name, given, by_name)
            if (name != self._parameter)
            else Case(self._entry_point, given, by_name)
          )
        if name in _VIEWS and self._is_pure(name) and arguments and not named:
          case = self._call(arguments[0])
          others = [self._value(x) for x in arguments[1:]] if case else []
          return case and replace(case, views=(*case.views, (name, others)))
    return None

  def _argument(self, node: ast.expr) -> list[Any]:
    if isinstance(node, ast.Starred):
      return list(self._value(node.value))
    return [self._value(node)]

  def _is_of_program(self, name: str) -> bool:
    if name == self._parameter:
      return True
    if name in self._bound or name in self._values:
      return False
    return name == self._entry_point or not hasattr(builtins, name)

  def _is_pure(self, name: str) -> bool:
    ours = name not in self._values and name not in self._bound
    return ours and name in _PURE and name != self._entry_point

  def _give(self, values: list[Any]) -> None:
    """Notes containers that a program gets; each may be there once."""
    seen: set[int] = set()
    for container in _containers(values):
      if id(container) in seen:
        raise _Other  # The program sees one list in two places.
      seen.add(id(container))
      self._given[id(container)] = container

  def _named(self, node: ast.expr) -> Any:
    """Returns what a name, or a name of a module, stands for, if known."""
    match node:
      case ast.Attribute(value=ast.Name(id=name), attr=attribute):
        if module := self._modules.get(name):
          return _IMPORTED[module].get(attribute, _UNKNOWN)
      case ast.Name(id=name) if name in self._values:
        return self._values[name]
      case ast.Name(id=name) if self._is_pure(name):
        return _PURE[name]
    return _UNKNOWN

  def _value(self, node: ast.expr) -> Any:
    """Returns the value of an expression that does not ask the program."""
    match node:
      case ast.Constant(value=value) if value is not ...:
        return value
      case ast.List(elts=parts):
        return [self._value(x) for x in parts]
      case ast.Tuple(elts=parts):
        return tuple(self._value(x) for x in parts)
      case ast.Set(elts=parts):
        return {self._value(x) for x in parts}
      case ast.Dict(keys=keys, values=values):
        names = [self._value(x) for x in keys if x]
        return dict(zip(names, map(self._value, values), strict=True))
      case ast.UnaryOp(op=op, operand=operand):
        return _OPERATORS[type(op)](self._value(operand))
      case ast.BinOp(left=left, op=op, right=right):
        return _operate(type(op), self._value(left), self._value(right))
      case ast.Call(func=function, args=arguments, keywords=[]):
        pure = self._named(function)
        if pure in _PURE.values():
          return _bounded(pure(*(self._value(x) for x in arguments)))
      case ast.Name() | ast.Attribute():
        value = self._named(node)
        if type(value) in _DATA:
          if any(id(x) in self._given for x in _containers([value])):
            raise _Other  # The program may have changed it.
          return value
    raise _Other


def _operate(op: type, left: Any, right: Any) -> Any:
  small = type(right) is not int or abs(right) <= _MAX_POWER
  if op is ast.Pow and not small:
    raise _Other
  repeats = op is ast.Mult and not {type(left), type(right)} <= _NUMBERS
  if repeats and not (small and len(left) <= _MAX_POWER):
    raise _Other
  return _OPERATORS[op](left, right)


def _bounded(value: Any) -> Any:
  """Returns a value; an iterator as a list, and none that is long."""
  if type(value) is range or hasattr(value, '__next__'):
    value = list(itertools.islice(value, _MAX_ITEMS + 1))
    if len(value) > _MAX_ITEMS:
      raise _Other
  return value


def _containers(values: list[Any]) -> Iterator[Any]:
  """Yields all containers in values that can change."""
  for value in values:
    if type(value) in (list, set, dict):
      yield value
    if type(value) in (list, tuple):
      yield from _containers(value)
    elif type(value) is dict:
      yield from _containers(list(value.values()))
