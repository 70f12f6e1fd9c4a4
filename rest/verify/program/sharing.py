"""Containers that a program and its tests both hold, though processes apart.

Stops: changes of what a program was never given, containers out of their turn,
two names for one, foreign types. Does not stop: a program that empties its own
argument before the tests look at it again, as it could in one process.
"""

from typing import Any

from rest.verify.program.wire import (
  CONTAINERS,
  MUTABLE,
  Values,
  Violation,
  dump,
)


class SharedValues(Values):
  """Values whose mutable containers are the same on both sides.

  Such a container crosses once, with a number (`{'m': [number, tag, items]}`),
  and is named by it from then on (`{'r': number}`), so that a list passed twice
  is one list. Each message begins with the new contents of those that have
  changed since the last (`changes`), and the other side makes its own so
  (`apply`). The sides number alike, since they take turns. So a program can
  change what it was given, at any time, as it could in one process; it cannot
  name anything else.

  Invariant: between two messages both sides hold as many containers, in one
  order, with contents of one digest. Example: the tests call f(v) with v = [3,
  1], and send {'m': [0, 'l', [3, 1]]}. The program sorts it: its reply begins
  with the changes [[0, [1, 3]]], and ends with {'r': 0} if it returns v, which
  the tests read as their own v. Then both settle.

  Attributes:
    sharing: Whether containers are shared now, rather than copied.
  """

  def __init__(self):
    self.sharing = True
    self.forget()

  def forget(self) -> None:
    """Shares no container any more; the other side must do so too."""
    self._held: list[tuple[str, Any]] = []
    self._numbers: dict[int, int] = {}  # By id.
    self._digests: dict[int, int] = {}
    self._unsettled: set[int] = set()

  def changes(self) -> list:
    """Returns the containers that have changed since the last message."""
    found = []
    for number, digest in list(self._digests.items()):
      contents = self._contents(*self._held[number], 0)
      if _digest(contents) != digest:
        self._unsettled.add(number)
        found.append([number, contents])
    return found

  def apply(self, changes: Any) -> None:
    """Makes our containers what the other side's have become."""
    if type(changes) is not list:
      raise Violation('Changes that are no list.')
    try:
      for number, content in changes:
        self._fill(number, content)
    except (LookupError, RecursionError, TypeError, ValueError) as error:
      raise Violation('A change that is none.') from error

  def settle(self) -> int:
    """Notes what both sides hold after a message; returns how many items."""
    for number in self._unsettled:
      self._digests[number] = _digest(self._contents(*self._held[number], 0))
    self._unsettled.clear()
    return sum(len(container) for _, container in self._held)

  def _container(self, tag: str, value: Any, depth: int) -> Any:
    if tag not in MUTABLE or not self.sharing:
      return super()._container(tag, value, depth)
    if id(value) in self._numbers:
      return {'r': self._numbers[id(value)]}
    number = self._hold(tag, value)
    return {'m': [number, tag, self._contents(tag, value, depth)]}

  def _hold(self, tag: str, container: Any) -> int:
    number = len(self._held)
    self._numbers[id(container)] = number
    self._held.append((tag, container))
    self._unsettled.add(number)
    return number

  def _build(self, tag: str, content: Any) -> Any:
    if tag in MUTABLE and self.sharing:
      raise ValueError('A container without a number.')
    return super()._build(tag, content)

  def _resolve(self, tag: str, content: Any) -> Any:
    if tag == 'r':
      return self._held[index(content, self._held)][1]
    if tag != 'm':
      return super()._resolve(tag, content)
    number, tag, content = content
    if number != len(self._held) or tag not in MUTABLE:
      raise ValueError('A container out of its turn.')
    container = CONTAINERS[tag]()
    self._hold(tag, container)
    self._fill(number, content)
    return container

  def _fill(self, number: Any, content: Any) -> None:
    tag, container = self._held[index(number, self._held)]
    new = super()._build(tag, content)
    base: Any = CONTAINERS[tag]
    base.clear(container)
    (base.extend if hasattr(base, 'extend') else base.update)(container, new)
    self._unsettled.add(number)


def index(number: Any, items: list) -> int:
  """Returns a number from the other side if it is a place in a list."""
  if type(number) is not int or not 0 <= number < len(items):
    raise ValueError(f'{number!r} is no place in a list.')
  return number


def _digest(contents: Any) -> int:
  # By text, in which 1, 1.0 and True differ.
  return hash(dump(contents))
