"""Examples whose tokens lie on disk: there may be ten million of them."""

from array import array
from collections.abc import Iterator, Sequence
from typing import Any, overload

from rest.m_step.packing import Example
from rest.run.spool import Spool


class Tokens(Sequence[int]):
  """Tokens on disk, that are read when one is looked at.

  Their number is known without that. They equal what lies at the same place.
  """

  __slots__ = ('_disk', '_place', '_size')

  def __init__(self, disk: Spool, place: int, size: int):
    self._disk, self._place, self._size = disk, place, size

  def __len__(self) -> int:
    return self._size

  def __iter__(self) -> Iterator[int]:
    return iter(array('i', self._disk.get(self._place)))

  def __getitem__(self, index: Any) -> Any:
    return tuple(self)[index]

  def __eq__(self, other: object) -> bool:
    return isinstance(other, Tokens) and self._place == other._place

  def __hash__(self) -> int:
    return hash(self._place)


class Stored(Sequence[Example]):
  """Examples in the order in which they were added, 32 bytes each in memory.

  Attributes:
    prefix: That all of them share.
    weights: Of each.
  """

  def __init__(self, disk: Spool, prefix: tuple[int, ...]):
    """Holds none yet; what is added goes to the disk."""
    self.prefix = prefix
    self.weights = array('d')
    self._disk = disk
    self._questions: dict[int, Tokens] = {}  # By their place.
    self._question_of, self._places = array('q'), array('q')
    self._sizes = array('q')

  def ask(self, question: Sequence[int]) -> int:
    """Writes a question, once for all its examples; returns its number."""
    place = self._put(question)
    self._questions[place] = Tokens(self._disk, place, len(question))
    return place

  def add(
    self, question: int, completion: Sequence[int], weight: float
  ) -> None:
    """Adds an example.

    Args:
      question: Its number, from `ask`.
      completion: Tokens.
      weight: See `Example`.
    """
    self._question_of.append(question)
    self._places.append(self._put(completion))
    self._sizes.append(len(completion))
    self.weights.append(weight)

  def __len__(self) -> int:
    return len(self.weights)

  @overload
  def __getitem__(self, index: int) -> Example: ...

  @overload
  def __getitem__(self, index: slice) -> list[Example]: ...

  def __getitem__(self, index: int | slice) -> Example | list[Example]:
    if isinstance(index, slice):
      return [self[i] for i in range(*index.indices(len(self)))]
    return Example(
      self._questions[self._question_of[index]],
      Tokens(self._disk, self._places[index], self._sizes[index]),
      self.weights[index],
      self.prefix,
    )

  def _put(self, tokens: Sequence[int]) -> int:
    return self._disk.put(array('i', tokens).tobytes())
