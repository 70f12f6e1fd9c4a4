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
      asks: With their index; may be lazy.
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
    self, width: Callable[[Ask], int], questions: int, most: int, ahead: int
  ) -> list[tuple[Order, int]]:
    """Takes orders whose questions are prefilled together.

    Invariant: all have the width of the first; those passed over stay, in
    order. Example: for 2 questions, and orders of asks a, a, b, c, d, of which
    b is wider, come (a, 0), (a, 0), (c, 1), and b, d are left.

    Args:
      width: At which a question is prefilled.
      questions: Most different questions.
      most: Most orders.
      ahead: Orders among which those of a width are found.

    Returns:
      Orders, and which of the questions taken is theirs.
    """
    while len(self._orders) < ahead and self._cut():
      pass
    taken: list[tuple[Order, int]] = []
    passed: deque[Order] = deque()
    source = -1
    while self._orders and len(taken) < most:
      order = self._orders.popleft()
      is_new = not taken or order.ask is not taken[-1][0].ask
      # Each is prefilled at its own width, so that its bits stay its own.
      fits = not taken or width(order.ask) == width(taken[0][0].ask)
      if not fits or (is_new and source + 1 == questions):
        passed.append(order)
        continue
      source += is_new
      taken.append((order, source))
    self._orders.extendleft(reversed(passed))
    return taken

  def _cut(self) -> bool:
    """Cuts the next ask into orders; returns whether there was one."""
    for index, ask in self._asks:
      if index in self._withdrawn:
        continue
      for start in range(0, len(ask.samples), self._chunk):
        stop = min(start + self._chunk, len(ask.samples))
        drafts = [Draft(place) for place in range(start, stop)]
        self._orders.append(Order(index, ask, drafts, len(drafts), len(drafts)))
      if ask.samples:
        return True
    return False
