"""The tests' end: runs a script of assertions against a program's objects.

For scripts that `cases` cannot say as values. The program runs in another
process, and each part of the link between the two stops one way to cheat:

  - The script and its expected values never enter the program's process, so
    that none can be read, or changed, there.
  - What comes is plain data of exact types (`wire`), or the number of an object
    of the program: nothing that overrides a comparison comes with it.
  - A name is asked for when the script uses it and does not define it; builtin
    names and modules of the library are the tests' own. So nothing that the
    program calls `abs` or `range` takes part.
  - An object of the program (`remote`) is equal to no data, and has no distance
    to it: only two objects of the program are compared by the program.
  - Only this process writes the verdict, at the end of the whole script, and
    not once the program has broken the rules: no test can catch that away.

What they do not stop: a test that asks the program for its own judgement (`a ==
b` of its own objects, `s.is_empty()`) is as weak as it reads; and the program
can change what it is given, as in one process, and so what the tests compute
from that in a later statement.
"""

import ast
import builtins
import contextlib
import copy
import importlib
import itertools
import json
import os
import random
import sys
import types
from collections.abc import Callable
from typing import Any

from rest.verify.program import script
from rest.verify.program.candidate import plain_arguments, rebuild
from rest.verify.program.remote import (
  Mirror,
  Remote,
  Unfit,
  handle,
  make_class,
  make_object,
)
from rest.verify.program.sharing import SharedValues, index
from rest.verify.program.wire import Link, Violation, decode_rows, is_builtin

_MAX_SHARED = 10_000  # Items of containers that are shared beyond a call.
_MAX_ITERATOR = 1_000_000  # Items of an iterator that is handed over.
# What a script speaks of when it rests on state that a program in another
# process does not share, or on more of an object than crosses.
_OF_ONE_PROCESS = {
  'open', 'input', 'stdin', 'environ', 'seed', 'mock', 'patch', 'tempfile',
  'inspect', 'gc', 'weakref', 'dir', 'threading', 'multiprocessing',
  'subprocess', 'pickle', 'dataclasses', 'globals', 'setrecursionlimit',
  '__code__', '__globals__', '__closure__', '__defaults__',
}  # fmt: skip


def run(descriptors: list[int]) -> int:
  """Runs the tests, and writes the outcome.

  Args:
    descriptors: Of the tests, the link, and the file for the outcome.
  """
  tests, descriptor, result = descriptors
  # Whatever ends this process early is a failure of what it tests.
  os.pwrite(result, b'error', 0)
  # Held open until the outcome is written: the program ends when it closes, and
  # a program that has ended ends its tests.
  link = Link(descriptor)
  size = os.fstat(tests).st_size
  fields = json.loads(os.pread(tests, size, 0))
  os.close(tests)
  outcome = _outcome(fields['script'], fields['entry_point'], Session(link))
  os.ftruncate(result, 0)
  os.pwrite(result, outcome.encode(), 0)
  return 0


def _outcome(text: str, entry_point: str, session: 'Session') -> str:
  """Returns 'passed', 'wrong', 'error', 'memory' or 'untested'.

  Invariant: only what the script itself says makes it 'untested', never an
  answer; and 'passed' needs its last line to be reached, the rules unbroken.
  Example: for `assert f(1) == 2` f is asked for; an answer of 2 passes, of 3 is
  'wrong', of {'o': 'x'} is a Violation, and so 'error', even within `try: ...
  except: pass`.
  """
  random.seed(0)
  sys.modules['tests'] = types.ModuleType('tests')
  try:
    tree = ast.parse(text)
    script.ReferencesFirst(tree).visit(tree)
    code = compile(tree, 'tests', 'exec', dont_inherit=True)
    names = Names(session, text, entry_point)
  except (SyntaxError, ValueError, ImportError, AttributeError, Unfit):
    return 'untested'
  try:
    exec(code, names)
    if entry_point and isinstance(names.get('check'), types.FunctionType):
      names['check'](names[entry_point])
  except Unfit:
    return 'untested'
  except AssertionError:
    return 'wrong'
  except MemoryError:
    return 'memory'
  except BaseException:  # SystemExit and Violation too: all but the end.
    return 'error'
  return 'error' if session.broken else 'passed'


class Names(dict):
  """The globals of a script: what it does not define, the program is asked.

  It is asked each time, since what the program calls so may change.
  """

  def __init__(self, session: 'Session', text: str, entry_point: str):
    """Finds what the program is to be asked.

    Invariant: `_wanted` holds no name that the script binds, none of a module,
    and builtin names only where the script can be about nothing else. Example:
    `import math; assert sum(f(x) for x in [math.e]) > 2` wants f alone: a
    program's own `sum` takes no part.

    Raises:
      Unfit: The script asks the program nothing, or needs its process.
      ImportError, AttributeError: It imports what is not there.
    """
    self._session = session
    tree = ast.parse(text)
    used, bound = script.names(text)
    free = (used | {entry_point} if entry_point else used) - bound
    said = script.imported(tree) | (free & vars(builtins).keys()) - {
      entry_point
    }
    if said & _OF_ONE_PROCESS:
      raise Unfit(f'It speaks of {sorted(said & _OF_ONE_PROCESS)}.')
    # `math.isclose` means Python's, whatever the program calls by that name.
    modules = (script.dotted(tree) & free & sys.stdlib_module_names) - {
      entry_point
    }
    self._wanted = free - script.builtins_kept(free, entry_point) - modules
    if not self._wanted & script.reached(tree, entry_point):
      raise Unfit('It asks the program nothing.')
    own: dict[str, Any] = {x: importlib.import_module(x) for x in modules}
    own[script.ReferencesFirst.COPIED] = _call_copied
    super().__init__(own, __builtins__=builtins, __name__='tests')

  def __missing__(self, name: str) -> Any:
    if name not in self._wanted:
      raise KeyError(name)
    try:
      value = self._session.ask('name', [name])
    except KeyError as error:  # Which would mean the builtin of that name.
      raise NameError(name) from error
    if isinstance(value, Mirror):
      type.__setattr__(value, '#named', True)
    return value


def _call_copied(function: Callable, *arguments: Any) -> Any:
  """Calls a function with copies of arguments, where they can be copied."""
  with contextlib.suppress(TypeError, copy.Error):
    arguments = copy.deepcopy(arguments)
  return function(*arguments)


class Session(SharedValues):
  """Asks the program's process.

  Attributes:
    broken: Whether the program ever broke the rules or went away.
  """

  def __init__(self, link: Link):
    super().__init__()
    self.broken = False
    self._link = link
    self._depth = 0  # Of asks that wait for their answers.
    self._shared = 0  # In containers that are shared.
    self._functions: list[Callable] = []
    self._objects: dict[int, Any] = {}

  def ask(
    self, do: str, arguments: list[Any], named: dict[str, Any] | None = None
  ) -> Any:
    """Returns what the program answers, or raises what it raises."""
    if self.broken:
      raise Violation('The program broke the rules before.')
    self._depth += 1
    try:
      return self._ask(do, arguments, named or {})
    except (Violation, MemoryError):
      self.broken = True
      raise
    finally:
      self._depth -= 1

  def _ask(self, do: str, arguments: list[Any], named: dict[str, Any]) -> Any:
    # A call that is under way shares what it was given until it ends.
    forget = self._depth == 1 and self._shared > _MAX_SHARED
    if forget:
      self.forget()
    self._send(do, arguments, named, forget)
    while 'back' in (reply := self._accepted()):
      self._call_back(reply)
    if 'raise' in reply:
      error = self._raised(do, _field(reply['raise'], list))
      self._shared = self.settle()
      raise error
    value = self._value(do, reply.get('value'))
    self._shared = self.settle()
    return value

  def _send(
    self, do: str, arguments: list, named: dict[str, Any], forget: bool = False
  ) -> None:
    message = {'do': do, 'forget': forget, 'changes': self.changes()}
    message['args'] = [self.encode(x) for x in arguments]
    message['named'] = {name: self.encode(x) for name, x in named.items()}
    self._link.send(message)
    self.settle()

  def _accepted(self) -> dict[str, Any]:
    """Returns the next message, after what it says has changed."""
    message = self._link.receive()
    self.apply(message.get('changes'))
    if printed := _field(message.get('printed'), str):
      sys.stdout.write(printed)  # Where the tests have put it.
    return message

  def _value(self, do: str, tree: Any) -> Any:
    if do == 'items':
      self.sharing = False  # A long list is a copy.
      try:
        return _field(self.decode(tree), list)
      finally:
        self.sharing = True
    if type(tree) is dict and 'L' in tree:
      return self._long_list(_field(tree['L'], int))
    return self.decode(tree)

  def _long_list(self, size: int) -> list:
    """Returns a list that is too long for one message."""
    items: list[Any] = []
    while len(items) < size:
      if not (more := self.ask('items', [len(items)])):
        raise Violation('A list without the items that it promised.')
      items += more
    return items

  def _raised(self, do: str, raised: list) -> BaseException:
    if len(raised) != 3:
      raise Violation('A message with no exception.')
    own, kind, arguments = raised
    own, kind = self.decode(own), self.decode(kind)
    if not (isinstance(kind, type) and issubclass(kind, BaseException)):
      raise Violation('A message with no exception.')
    arguments = _field(arguments, list)
    if not {str, int, float, bool}.issuperset(map(type, arguments)):
      raise Violation('Arguments of an exception that are no data.')
    if do == '__next__' and kind is StopIteration:
      return StopIteration()
    if not isinstance(kind, Mirror):
      return rebuild(kind, arguments)
    if type(own) is not kind or issubclass(kind, StopIteration):
      raise Violation('An exception of another class.')
    BaseException.__init__(own, *arguments)
    return own

  def _call_back(self, message: dict[str, Any]) -> None:
    """Calls a function of the tests for the program."""
    trees, named = _field(message.get('args'), list), message.get('named')
    arguments = [self.decode(x) for x in trees]
    named = {k: self.decode(x) for k, x in _field(named, dict).items()}
    self.settle()
    function = self._function(message['back'])
    try:
      answer = [False, function(*arguments, **named)]
    except Exception as error:
      kind = next(x for x in type(error).__mro__ if is_builtin(x))
      answer = [True, (kind, plain_arguments(error))]
    self._send('return', answer, {})

  def _function(self, number: Any) -> Callable:
    try:
      return self._functions[index(number, self._functions)]
    except ValueError as error:
      raise Violation('A call of no function.') from error

  def _export(self, value: Any) -> dict[str, Any]:
    if isinstance(value, (Mirror, Remote)):
      return {'o': handle(value)[1]}
    if callable(value):
      # Only to be called: its globals hold the expected values.
      self._functions.append(value)
      return {'c': len(self._functions) - 1}
    if hasattr(value, '__next__'):
      items = list(itertools.islice(value, _MAX_ITERATOR))
      return {'I': self.encode(items)}
    raise Unfit(f'{type(value).__name__} of the tests cannot be handed over.')

  def _resolve(self, tag: str, content: Any) -> Any:
    if tag == 'o':
      return self._object(*content)
    if tag == 'c':
      return self._function(content)
    if tag == 'T' and not self.sharing:
      return decode_rows(*content)
    if tag == 'module' and content in sys.stdlib_module_names:
      return importlib.import_module(content)
    if tag == 'exception':
      return _library_exception(*content)
    return super()._resolve(tag, content)

  def _object(self, number: int, *described: Any) -> Any:
    """Returns an object of the program; it is described when first named."""
    if described:
      if number in self._objects or type(number) is not int:
        raise ValueError('An object that is named already.')
      if len(described) == 1:
        kind = self.decode(described[0])
        new = make_object(self, number, kind)
      else:
        name, bases, able = described
        new = make_class(self, number, name, self._decode_items(bases), able)
      self._objects[number] = new
    return self._objects[number]


def _library_exception(module: str, name: str) -> type:
  """Returns an exception of the library, such as decimal.InvalidOperation."""
  kind = getattr(sys.modules[module], name)
  if (
    module.partition('.')[0] not in sys.stdlib_module_names
    or not isinstance(kind, type)
    or not issubclass(kind, Exception)
  ):
    raise ValueError('No exception of the library.')
  return kind


def _field(value: Any, kind: type) -> Any:
  if type(value) is not kind:
    raise Violation('A message of another form.')
  return value
