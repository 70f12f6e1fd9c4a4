"""Which buffer each order of a load fills: one beside its question."""

from collections import deque
from typing import NamedTuple

from rest.sampler.order import Order

COPIES = 4  # Buffers that a load can fill, for each question it prefills.

Buffer = tuple[int, int]  # A slot, and which of its buffers.


class Filled(NamedTuple):
  """A buffer that a load fills.

  Attributes:
    order: What goes there.
    buffer: Of the whole table.
    source: The load's question that is the order's, counted over all shards.
    place: Of the buffer among those that the load can fill, likewise.
  """

  order: Order
  buffer: Buffer
  source: int
  place: int


class Placing:
  """A load in the making.

  Attributes:
    filled: What it has been given.
  """

  def __init__(self, free: list[deque[Buffer]], questions: int):
    """Begins with nothing.

    Args:
      free: Buffers by shard; those that are filled are taken out.
      questions: Most different ones of a shard.
    """
    self.filled: list[Filled] = []
    self._free = free
    self._questions = questions
    self._used = [0] * len(free)  # Places, by shard.
    self._sources: list[dict[int, int]] = [{} for _ in free]  # By ask.

  def add(self, order: Order) -> bool:
    """Gives an order a buffer; returns whether there was one for it.

    Invariant: a shard has each question once, whose keys its own slots read.
    Shards are kept even, but for a few buffers that an ask fills beside its
    question. Example: of 2 shards with 8 free buffers each, 5 orders of ask a
    go to shard 0, a sixth and one of ask b to shard 1: each prefills a.

    Args:
      order: Of the load's width.
    """
    shard = self._shard(order.index)
    if shard is None:
      return False
    own = self._sources[shard]
    source = own.setdefault(order.index, len(own))
    self.filled.append(
      Filled(
        order,
        self._free[shard].popleft(),
        shard * self._questions + source,
        shard * COPIES * self._questions + self._used[shard],
      )
    )
    self._used[shard] += 1
    return True

  def _shard(self, ask: int) -> int | None:
    """Returns where an order of an ask goes; None where no shard has room."""
    found = [
      shard
      for shard, own in enumerate(self._sources)
      if self._room(shard) and (ask in own or len(own) < self._questions)
    ]

    def worth(shard: int) -> int:
      return self._room(shard) + COPIES * (ask in self._sources[shard])

    return max(found, key=worth, default=None)

  def _room(self, shard: int) -> int:
    places = COPIES * self._questions - self._used[shard]
    return min(len(self._free[shard]), places)
