"""The tests' end: runs a script of assertions against a program's objects.

The program runs in another process. What it is asked for comes as plain data;
what is no data comes as a `Remote`, which can be called and looked into but is
equal to nothing but other objects of the program. Only this process can write
the verdict, and it does so only after the whole script has run.
"""

import ast
import builtins
import importlib
import itertools
import json
import os
import random
import sys
import types
from collections import deque
from collections.abc import Callable
from typing import Any

from rest.verify.candidate import describe, rebuild
from rest.verify.wire import Link, Violation, decode, encode


def run(descriptors: list[int]) -> int:
  """Runs the tests, and writes the outcome.

  Args:
    descriptors: Of the tests, the link, and the file for the outcome.
  """
  tests, descriptor, result = descriptors
  # Held open until the outcome is written: the program ends when it closes, and
  # a program that has ended ends its tests.
  link = Link(descriptor)
  size = os.fstat(tests).st_size
  fields = json.loads(os.pread(tests, size, 0))
  os.close(tests)
  outcome = _outcome(fields['script'], fields['entry_point'], link)
  os.pwrite(result, outcome.encode(), 0)
  return 0


def _outcome(script: str, entry_point: str, link: Link) -> str:
  """Returns 'passed', 'wrong', 'error', 'memory' or 'untested'."""
  random.seed(0)
  session = Session(link)
  module = types.ModuleType('tests')
  sys.modules['tests'] = module
  names = vars(module)
  names['__builtins__'] = builtins
  try:
    tree = ast.parse(script)
  except (SyntaxError, ValueError):
    return 'untested'
  try:
    names |= session.names(tree, entry_point)
    exec(compile(tree, 'tests', 'exec', dont_inherit=True), names)
    if entry_point and isinstance(names.get('check'), types.FunctionType):
      names['check'](names[entry_point])
  except AssertionError:
    return 'wrong'
  except MemoryError:
    return 'memory'
  except ImportError:
    # A module that the tests want is no fault of the program.
    return 'error' if session.touched else 'untested'
  except (Exception, SystemExit, KeyboardInterrupt, Violation):
    return 'error'
  if session.broken:
    return 'error'
  return 'passed' if session.touched else 'untested'


class Session:
  """Asks the program's process.

  Attributes:
    broken: Whether it ever broke the rules or went away; no test can catch
      that away.
    touched: Whether anything of the program took part in the tests.
  """

  def __init__(self, link: Link):
    self.broken = False
    self.touched = False
    self._link = link
    self._numbers = itertools.count()
    self._functions: list[Callable] = []

  def names(self, tree: ast.Module, entry_point: str = '') -> dict[str, Any]:
    """Returns the program's values for the names that a script uses."""
    used, dotted = _free_names(tree)
    used |= {entry_point} if entry_point else set()
    # `math.isclose` means Python's, whatever the program calls by that name.
    modules = (dotted & sys.stdlib_module_names) - {entry_point}
    wanted = used - _builtins_kept(used, entry_point) - modules
    found = self.ask('names', [sorted(wanted)])
    if type(found) is not dict:
      raise self._violation('Names that are no dict.')
    found |= {name: importlib.import_module(name) for name in modules}
    values = (x for x in found.values() if not isinstance(x, types.ModuleType))
    self.touched = any(type(x) is not Remote for x in values)
    return found

  def ask(
    self, do: str, arguments: list[Any], named: dict[str, Any] | None = None
  ) -> Any:
    """Returns what the program answers, or raises what it raises."""
    if self.broken:
      raise Violation('The program broke the rules before.')
    try:
      return self._ask(do, arguments, named or {})
    except (Violation, MemoryError):
      self.broken = True
      raise

  def _ask(self, do: str, arguments: list[Any], named: dict[str, Any]) -> Any:
    number = next(self._numbers)
    trees = [self._encode(x) for x in arguments]
    self._link.send(
      {
        'id': number,
        'do': do,
        'args': trees,
        'named': {k: self._encode(x) for k, x in named.items()},
      }
    )
    while True:
      reply = self._link.receive()
      if 'back' not in reply:
        break
      self._call_back(reply)
    if reply.get('id') != number:
      raise Violation('An answer to no question.')
    for change in _field(reply.get('changes', []), list):
      self._change(arguments, _field(change, list))
    if 'raise' in reply:
      raise self._raised(do, _field(reply['raise'], list))
    return self._decode(reply.get('value'))

  def _change(self, arguments: list[Any], change: list) -> None:
    """Makes an argument what the program made of its copy of it."""
    position = _field(change[0], int) if len(change) == 2 else -1
    if not 0 <= position < len(arguments):
      raise Violation('A change of no argument.')
    _restore(arguments[position], self._decode(change[1]))

  def _raised(self, do: str, tree: list) -> Exception:
    if do == 'next' and tree[:1] == ['StopIteration']:
      return StopIteration()
    if len(tree) != 2 or type(tree[0]) is not str:
      raise Violation('A message with no exception.')
    return rebuild(tree, self._decode)

  def _call_back(self, message: dict[str, Any]) -> None:
    """Calls a function of the tests for the program."""
    number = _field(message['back'], int)
    if not 0 <= number < len(self._functions):
      raise Violation('A call of no function.')
    arguments = [self._decode(x) for x in _field(message.get('args'), list)]
    named = _field(message.get('named'), dict)
    named = {k: self._decode(x) for k, x in named.items()}
    try:
      value = self._functions[number](*arguments, **named)
      reply = {'value': self._encode(value)}
    except Exception as error:
      reply = {'raise': describe(error, self._encode)}
    self._link.send(reply)

  def _violation(self, text: str) -> Violation:
    self.broken = True
    return Violation(text)

  def _encode(self, value: object) -> Any:
    return encode(value, self._export)

  def _export(self, value: Any) -> dict[str, Any]:
    if type(value) is Remote:
      return {'r': object.__getattribute__(value, '_number')}
    if callable(value):
      # Only to be called: its globals hold the expected values.
      self._functions.append(value)
      return {'c': len(self._functions) - 1}
    if hasattr(value, '__next__'):
      return {'I': self._encode(list(value))}
    raise TypeError(f'{type(value).__name__} of the tests cannot be passed.')

  def _decode(self, tree: Any) -> Any:
    return decode(tree, self._resolve)

  def _long_list(self, size: int) -> list:
    """Returns a list that is too long for one message."""
    items: list[Any] = []
    while len(items) < size:
      more = self.ask('items', [len(items)])
      if not _field(more, list):
        raise Violation('A list without the items that it promised.')
      items += more
    return items

  def _resolve(self, tree: dict[str, Any]) -> Any:
    if 'h' in tree:
      return Remote(self, _field(tree['h'], int))
    if 'L' in tree:
      return self._long_list(_field(tree['L'], int))
    if 'c' in tree:
      return self._functions[tree['c']]
    if 'm' in tree and tree['m'] in sys.stdlib_module_names:
      return importlib.import_module(tree['m'])
    raise Violation('A message that is no value.')


class Remote:
  """An object of the program, as the tests see it.

  Comparisons and arithmetic reach the program only where both sides are its
  own: an object that is 'equal' to whatever it is compared with, or whose
  distance to it is 'small', gets no chance.
  """

  def __init__(self, session: Session, number: int):
    object.__setattr__(self, '_session', session)
    object.__setattr__(self, '_number', number)

  def __getattr__(self, name: str) -> Any:
    if name.startswith('__') and name not in ('__name__', '__doc__'):
      raise AttributeError(name)
    return _ask(self, 'get', name)

  def __setattr__(self, name: str, value: object) -> None:
    _ask(self, 'set', name, value)

  def __call__(self, *arguments: Any, **named: Any) -> Any:
    session = object.__getattribute__(self, '_session')
    session.touched = True
    return session.ask('call', [self, *arguments], named)

  def __hash__(self) -> int:
    return object.__getattribute__(self, '_number')

  def __iter__(self) -> Any:
    iterator = _ask(self, 'iter')
    return iterator if type(iterator) is Remote else iter(iterator)

  def __next__(self) -> Any:
    return _ask(self, 'next')

  def __len__(self) -> int:
    return _ask(self, 'len')

  def __bool__(self) -> bool:
    return _ask(self, 'bool')

  def __str__(self) -> str:
    return _ask(self, 'str')

  def __repr__(self) -> str:
    return _ask(self, 'repr')

  def __int__(self) -> int:
    return _ask(self, 'int')

  def __float__(self) -> float:
    return _ask(self, 'float')

  def __getitem__(self, key: Any) -> Any:
    return _ask(self, 'getitem', key)

  def __setitem__(self, key: Any, value: Any) -> None:
    _ask(self, 'setitem', key, value)

  def __delitem__(self, key: Any) -> None:
    _ask(self, 'delitem', key)

  def __enter__(self) -> Any:
    return _ask(self, 'enter')

  def __exit__(self, *_: object) -> None:
    _ask(self, 'exit')


def _ask(remote: Remote, do: str, *arguments: Any) -> Any:
  session = object.__getattribute__(remote, '_session')
  return session.ask(do, [remote, *arguments])


def _add_operator(name: str) -> None:
  def between(self: Remote, other: object) -> Any:
    if type(other) is not Remote:
      return NotImplemented
    same = _number(self) == _number(other)
    if name == 'eq' and same:
      return True
    return _ask(self, f'{name}_' if name in ('and', 'or') else name, other)

  setattr(Remote, f'__{name}__', between)


def _number(remote: Remote) -> int:
  return object.__getattribute__(remote, '_number')


for _name in ('eq', 'ne', 'lt', 'le', 'gt', 'ge'):
  _add_operator(_name)
for _name in ('add', 'sub', 'mul', 'truediv', 'matmul', 'and', 'or', 'xor'):
  _add_operator(_name)


def _free_names(tree: ast.Module) -> tuple[set[str], set[str]]:
  """Returns the names that a script does not bind, and those with a dot."""
  used, dotted, bound = set(), set(), set()
  for node in ast.walk(tree):
    match node:
      case ast.Name(id=name, ctx=ast.Load()):
        used.add(name)
      case ast.Name(id=name) | ast.arg(arg=name):
        bound.add(name)
      case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
        bound.add(name)
      case ast.alias(name=name, asname=other):
        bound.add(other or name.split('.')[0])
    match node:
      case ast.Attribute(value=ast.Name(id=name)):
        dotted.add(name)
  return used - bound, dotted - bound


def _builtins_kept(used: set[str], entry_point: str) -> set[str]:
  """Returns the builtin names that the program may not redefine for the tests.

  A program's own `sum` is what some tests are about; a program's own `len`
  would spoil tests of something else. So a builtin name is the program's only
  where the script names nothing else that could be under test.
  """
  shadowed = {n for n in used if hasattr(builtins, n)} - {entry_point}
  if entry_point or len(shadowed) > 1 or used - shadowed:
    return shadowed
  return set()


def _restore(old: Any, new: Any) -> None:
  """Makes an argument what the program made of its copy of it."""
  if not isinstance(old, type(new)):
    raise Violation('An argument that changed its type.')
  if isinstance(old, (list, deque, bytearray)):
    if not isinstance(old, bytearray):
      new = [_kept(a, b) for a, b in zip(old, new, strict=False)] + list(
        itertools.islice(new, len(old), None)
      )
    old.clear()
    old.extend(new)
    return
  if isinstance(old, dict):
    new = {k: _kept(old[k], v) if k in old else v for k, v in new.items()}
  elif not isinstance(old, set):
    raise Violation('A change of what cannot change.')
  old.clear()
  old.update(new)


def _kept(old: Any, new: Any) -> Any:
  """Returns the old container with the new contents, else the new value."""
  if type(old) is type(new) and isinstance(old, (list, dict, set, deque)):
    _restore(old, new)
    return old
  return new


def _field(value: Any, kind: type) -> Any:
  if type(value) is not kind:
    raise Violation('A message of another form.')
  return value
