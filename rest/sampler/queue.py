"""The list of asks, cut into orders, as far as it was looked at."""

from collections import deque
from collections.abc import Callable, Collection, Iterator

from rest.sampler.order import Ask, Draft, Order


class Queue:
  """Orders that wait for a buffer; asks are read as they are needed."""

  def __init__(
    self,
    asks: Iterator[tuple[int, Ask]],
    chunk: int,
    withdrawn: Collection[int],
  ):
    """Reads nothing yet.

    Args:
      asks: With their index.
      chunk: Most samples in an order.
      withdrawn: Indices of asks that no more is wanted of; may grow.
    """
    self._asks = asks
    self._chunk = chunk
    self._withdrawn = withdrawn
    self._orders: deque[Order] = deque()

  def has_next(self) -> bool:
    """Whether an order is left; an ask is read to know."""
    return bool(self._orders) or self._cut()

  def forget(self) -> None:
    """Takes out the orders of asks that were withdrawn."""
    self._orders = deque(
      order for order in self._orders if order.index not in self._withdrawn
    )

  def take(
    self, width: Callable[[Ask], int], add: Callable[[Order], bool], ahead: int
  ) -> int:
    """Takes orders whose questions are prefilled together.

    Invariant: all have the width of the first; those passed over stay, in
    order. Example: for a load of 2 questions, and orders of asks a, a, b, c, d,
    of which b is wider, a, a and c are taken, and b, d are left.

    Args:
      width: At which a question is prefilled.
      add: Puts an order into the load; returns whether there was room for it.
      ahead: Orders among which those of a width are found.

    Returns:
      The width.
    """
    while len(self._orders) < ahead and self._cut():
      pass
    # Each is prefilled at its own width, so that its bits stay its own.
    first = width(self._orders[0].ask)
    self._orders = deque(
      order
      for order in self._orders
      if width(order.ask) != first or not add(order)
    )
    return first

  def _cut(self) -> bool:
    """Cuts the next ask into orders; returns whether there was one."""
    for index, ask in self._asks:
      if index in self._withdrawn:
        continue
      for start in range(0, len(ask.samples), self._chunk):
        stop = min(start + self._chunk, len(ask.samples))
        drafts = [Draft(place, begun=ask.begun) for place in range(start, stop)]
        self._orders.append(Order(index, ask, drafts, len(drafts), len(drafts)))
      if ask.samples:
        return True
    return False
