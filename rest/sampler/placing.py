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

  def __init__(
    self, free: list[deque[Buffer]], left: list[int], questions: int
  ):
    """Begins with nothing.

    Args:
      free: Buffers by shard; those that are filled are taken out.
      left: Samples that each shard has yet to end.
      questions: Most different ones of a shard.
    """
    self.filled: list[Filled] = []
    self._free = free
    self._left = left
    self._questions = questions
    self._used = [0] * len(free)  # Places, by shard.
    self._sources: list[dict[int, int]] = [{} for _ in free]  # By ask.

  def add(self, order: Order) -> bool:
    """Gives an order a buffer; returns whether there was one for it.

    Invariant: a shard has each question once, whose keys its own slots read.
    All shards are to end together, so the one with the fewest samples is next,
    but for a few buffers that an ask fills beside its question. Example: of 2
    shards with nothing to do, 5 orders of ask a go to shard 0, a sixth and one
    of ask b to shard 1: each prefills a.

    Args:
      order: Of the load's width.
    """
    shard = self._shard(order)
    if shard is None:
      return False
    own = self._sources[shard]
    source = own.setdefault(id(order.ask), len(own))
    self.filled.append(
      Filled(
        order,
        self._free[shard].popleft(),
        shard * self._questions + source,
        shard * COPIES * self._questions + self._used[shard],
      )
    )
    self._used[shard] += 1
    self._left[shard] += order.left
    return True

  def _shard(self, order: Order) -> int | None:
    """Returns where an order goes; None where no shard has room for it."""

    def has_room(shard: int) -> bool:
      own = self._sources[shard]
      is_full = self._used[shard] == COPIES * self._questions
      fits = id(order.ask) in own or len(own) < self._questions
      return bool(self._free[shard]) and not is_full and fits

    def cost(shard: int) -> int:
      has_question = id(order.ask) in self._sources[shard]
      return self._left[shard] - COPIES * order.left * has_question

    shards = range(len(self._free))
    return min(filter(has_room, shards), key=cost, default=None)
