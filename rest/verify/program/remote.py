"""Objects and classes of a program, as its tests see them.

A class of the program is a class here, with the same bases, and so are its
exceptions: `isinstance`, `type` and `except` mean what they say. Whatever else
is done with it or its objects, the program is asked. But an object is compared
with, and added to, other objects of the program alone: one that is 'equal' to
whatever it meets, or whose distance to it is 'small', gets no chance.

Does not stop: two objects of a program are compared by the program, and a test
that asks one for its own judgement (`s.is_empty()`) gets it.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from rest.verify.program.candidate import BETWEEN, SPECIAL

_COMPARISONS = BETWEEN[:6]
_REFLECTED = ('__radd__', '__rsub__', '__rmul__', '__rtruediv__')
_NUMBERS = ('__bool__', '__int__', '__float__', '__index__', '__round__',
            '__abs__', '__neg__', '__len__')  # fmt: skip
# Special attributes that are looked up like others.
_ASKED = ('__name__', '__qualname__', '__annotations__', '__members__')


class Unfit(BaseException):
  """The tests cannot be run across processes; none of them catches it."""


class Asker(Protocol):
  """Whoever asks the program."""

  def ask(
    self, do: str, arguments: list[Any], named: dict[str, Any] | None = None
  ) -> Any:
    """Returns what the program answers, or raises what it raises."""


def handle(thing: Any) -> tuple:
  """Returns who asks about an object or a class, its number, and marks."""
  if isinstance(thing, Mirror):
    return type.__getattribute__(thing, '#')
  return object.__getattribute__(thing, '#')


def _ask(thing: Any, do: str, /, *arguments: Any, **named: Any) -> Any:
  return handle(thing)[0].ask(do, [thing, *arguments], named)


def _get(thing: Any, name: str) -> Any:
  if name.startswith('__') and name not in _ASKED:
    raise AttributeError(name)  # Such as Python itself looks for.
  return _ask(thing, 'get', name)


def _asking(name: str) -> Any:
  return lambda self, /, *rest, **named: _ask(self, name, *rest, **named)


def _asked(name: str) -> Any:
  return property(lambda self: _ask(self, 'get', name))


class Mirror(type):
  """The class of a class of the program."""

  def __new__(cls, name: str, bases: tuple, members: dict[str, Any]):
    if '#' not in members:
      raise Unfit('A class of the tests derives from one of the program.')
    return super().__new__(cls, name, bases, members)

  __getattr__ = _get
  __setattr__ = _asking('set')
  __call__ = _asking('__call__')
  __iter__ = _asking('__iter__')
  __len__ = _asking('__len__')
  __getitem__ = _asking('__getitem__')
  __doc__ = _asked('__doc__')


class Remote:
  """An object of the program."""

  __getattr__ = _get
  __dict__ = _asked('__dict__')
  __copy__ = _asking('copy')

  def __deepcopy__(self, memo: dict[int, Any]) -> Any:
    return _ask(self, 'deepcopy')

  def __setattr__(self, name: str, value: object) -> None:
    if name.startswith('__'):  # Such as the traceback of an exception.
      object.__setattr__(self, name, value)
    else:
      _ask(self, 'set', name, value)


def make_object(asker: Asker, number: int, kind: Any) -> Any:
  """Returns an object of the program, of a class of the program."""
  if not isinstance(kind, Mirror):
    raise ValueError('An object of no class of the program.')
  new = kind.__new__(kind)  # type: ignore
  object.__setattr__(new, '#', (asker, number))
  return new


def make_class(
  asker: Asker,
  number: int,
  name: str,
  bases: Sequence[Any],
  able: Sequence[str],
) -> Mirror:
  """Returns a class of the program.

  Invariant: it has no base but other classes of the program and exceptions that
  are builtin, so that none of its objects is data. Example: for `class Full(
  Exception)` that can `__str__`, it is a Mirror with the bases Remote and
  Exception, which `except Full` catches, and whose `str` asks the program.

  Args:
    asker: Whoever asks the program.
    number: Of the class.
    name: Of the class.
    bases: Its bases, of the program or builtin exceptions.
    able: What can be done with its objects: names of `SPECIAL`.
  """
  members = {do: _method(do) for do in SPECIAL if do in able}
  members |= {'#': (asker, number), '__module__': 'tests'}
  members['__doc__'] = _asked('__doc__')
  kept = [x for x in bases if isinstance(x, Mirror)]
  for base in bases:
    if isinstance(base, type) and issubclass(base, BaseException):
      kept += [Remote, base] if base not in kept else []
  try:
    return Mirror(name, tuple(dict.fromkeys(kept)) or (Remote,), members)
  except TypeError:  # Bases that do not go together here.
    return Mirror(name, (Remote,), members)


def _method(do: str) -> Any:
  if do == '__contains__':
    return _contains
  if do in (*BETWEEN, *_REFLECTED):
    return _between(do)
  return _number(do) if do in _NUMBERS else _asking(do)


def _between(do: str) -> Any:
  def between(self: Any, other: object, *rest: object) -> Any:
    if isinstance(type(other), Mirror):
      return _ask(self, do, other, *rest)
    if do in _COMPARISONS or not _is_named(type(self)):
      return NotImplemented
    # Such as `Vector(1, 2) * 2`: an object again, and never taken for a number,
    # or whatever `abs(f(x) - 3)` met could be small.
    result = _ask(self, do, other, *rest)
    if not isinstance(type(result), Mirror):
      return NotImplemented
    object.__setattr__(result, '#', (*handle(result), 'mixed'))
    return result

  return between


def _number(do: str) -> Any:
  def number(self: Any, *rest: object) -> Any:
    if len(handle(self)) > 2:
      raise TypeError('This is no number.')
    return _ask(self, do, *rest)

  return number


def _is_named(kind: type) -> bool:
  """Whether the tests name a class, or a base of it."""
  return any('#named' in vars(base) for base in kind.__mro__)


def _contains(self: Any, item: object) -> bool:
  # Where the tests name the class, they ask for its judgement; else for items
  # of a result, which they compare themselves.
  if _is_named(type(self)):
    return _ask(self, '__contains__', item)
  return any(x is item or x == item for x in self)
