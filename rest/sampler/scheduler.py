"""The host's side of the table: which question goes where, what came back."""

import hashlib
from collections import deque
from collections.abc import Collection, Iterator

import numpy as np

from rest.sampler.capacity import widths
from rest.sampler.order import Ask, Draft, Order, Owners
from rest.sampler.rearrange import share_out
from rest.sampler.table import (
  BUFFERS,
  Load,
  Move,
  Slots,
  TableShape,
  idle_state,
)

_COPIES = 4  # Slots that a load can fill, for each question it prefills.
_AHEAD = 8  # Loads' worth of orders among which those of a width are found.


class Scheduler:
  """Fills buffers from the list of asks and sorts what the device returns."""

  def __init__(
    self,
    shape: TableShape,
    asks: Iterator[tuple[int, Ask]],
    chunk: int,
    questions: int,
    limit: int,
    seed: int,
    withdrawn: Collection[int],
    shards: int,
  ):
    """Starts with empty buffers.

    Args:
      shape: Of the table.
      asks: With their index; may be lazy.
      chunk: Most samples in an order.
      questions: Questions in a load.
      limit: Longest completion.
      seed: Of all random numbers.
      withdrawn: Indices of asks that no more is wanted of; may grow.
      shards: Into how many parts the devices split slots; each keeps its own.
    """
    self.shape = shape
    self.owners: Owners = [[None] * BUFFERS for _ in range(shape.slots)]
    self._asks = asks
    self._chunk = chunk
    self._questions = questions
    self._limit = limit
    self._seed = seed
    self._withdrawn = withdrawn
    self._shards = shards
    self._withdrawals = 0  # How many of them are done with.
    self._evened = 1 << 30  # Samples left when rows were last shared out.
    self._orders: deque[Order] = deque()  # Cut from asks, not yet loaded.
    self._free = deque(
      (slot, buffer) for buffer in range(BUFFERS) for slot in range(shape.slots)
    )

  @property
  def longest(self) -> int:
    """Tokens of the longest draft that is not done."""
    return max(
      (
        len(draft.tokens)
        for slot in self.owners
        for order in slot
        if order
        for draft in order.drafts
        if not draft.is_done
      ),
      default=0,
    )

  @property
  def is_open(self) -> bool:
    """Whether samples are still to be drawn."""
    return any(any(slot) for slot in self.owners)

  @property
  def waiting(self) -> int:
    """Samples in buffers that no row has begun, as far as the host knows."""
    return sum(order.waiting for slot in self.owners for order in slot if order)

  def load(self) -> Load | None:
    """Returns the next questions for the free buffers, or None.

    A load is a batch of fixed size, so it waits for as many free buffers,
    except when a slot has nothing to do.
    """
    if not self._free or not (self._orders or self._cut()):
      return None
    if len(self._free) < self._questions and not self._starves():
      return None
    while len(self._orders) < _AHEAD * self._questions and self._cut():
      pass
    width = self._width(self._orders[0].ask)
    batch: list[tuple[Order, int, int]] = []
    sources: list[Ask] = []
    passed: deque[Order] = deque()
    while (
      self._orders and self._free and len(batch) < _COPIES * self._questions
    ):
      order = self._orders.popleft()
      is_new = not sources or order.ask is not sources[-1]
      # Each is prefilled at its own width, so that its bits stay its own.
      fits = self._width(order.ask) == width
      if not fits or (is_new and len(sources) == self._questions):
        passed.append(order)
        continue
      slot, buffer = self._free.popleft()
      self.owners[slot][buffer] = order
      if is_new:
        sources.append(order.ask)
      batch.append((order, len(sources) - 1, slot * BUFFERS + buffer))
    self._orders.extendleft(reversed(passed))
    return self._pack(sources, batch)

  def collect(
    self, owners: Owners, tokens_TB, logprobs_TB, entry_TB, ended_TB
  ) -> Iterator[tuple[Draft, bool]]:
    """Files a call's tokens; yields each draft that grew, and if it ended.

    The table may have been rearranged since the call was made.

    Args:
      owners: Who held the buffers when the call was made.
      tokens_TB: What was drawn, as NumPy arrays, like the others.
      logprobs_TB: Log-probabilities.
      entry_TB: Which entry of its slot each row drew for; -1 for none.
      ended_TB: Whether that was the last token of its sample.
    """
    steps, size = entry_TB.shape
    rows = size // len(owners)  # Of a slot.
    entries = entry_TB.T.reshape(-1)
    tokens, logprobs = tokens_TB.T.reshape(-1), logprobs_TB.T.reshape(-1)
    ended = ended_TB.T.reshape(-1)
    changes = np.ones((size, steps), bool)
    changes[:, 1:] = entry_TB.T[:, 1:] != entry_TB.T[:, :-1]
    starts = np.flatnonzero(changes.reshape(-1))
    stops = np.append(starts[1:], entries.size)
    used = entries[starts] >= 0
    for start, stop in zip(starts[used], stops[used], strict=True):
      entry = int(entries[start])
      row = int(start) // steps
      buffer, index = divmod(entry, self.shape.samples)
      order = owners[row // rows][buffer]
      assert order is not None
      draft = order.drafts[index]
      if draft.is_done:
        continue  # The host ended it at a stop; the device did not know yet.
      if not draft.tokens:
        order.waiting -= 1
        draft.row, draft.entry = row, entry
      draft.tokens.extend(tokens[start:stop].tolist())
      draft.logprobs.extend(logprobs[start:stop].tolist())
      yield draft, bool(ended[stop - 1])

  def close(self, draft: Draft) -> Order:
    """Marks a draft as done; its buffer falls free with its last one.

    Returns:
      The order that it was part of.
    """
    slot = draft.row // self.shape.rows
    buffer = draft.entry // self.shape.samples
    order = self.owners[slot][buffer]
    assert order is not None
    draft.is_done = True
    order.left -= 1
    if not order.left:
      self.owners[slot][buffer] = None
      self._free.append((slot, buffer))
    return order

  def withdraw(self) -> np.ndarray:
    """Forgets the asks that were withdrawn, and frees their buffers.

    Returns:
      is_over_QE. The next call must have it, before any load fills a buffer.
    """
    is_over_QE = np.zeros((self.shape.slots, BUFFERS), bool)
    if len(self._withdrawn) == self._withdrawals:
      return is_over_QE
    self._withdrawals = len(self._withdrawn)
    self._orders = deque(
      order for order in self._orders if order.index not in self._withdrawn
    )
    for slot, orders in enumerate(self.owners):
      for buffer, order in enumerate(orders):
        if order is None or order.index not in self._withdrawn:
          continue
        for draft in order.drafts:
          draft.is_done = True  # For the calls that are under way.
        is_over_QE[slot, buffer] = True
        orders[buffer] = None
        self._free.append((slot, buffer))
    return is_over_QE

  def fits(self, shape: TableShape) -> bool:
    """Whether all that is left could be at work in a table, none waiting."""
    if self._orders or self._cut():
      return False
    room = shape.size // self._shards
    return all(self._left(s) <= room for s in self._shards_of(self.shape))

  def is_uneven(self) -> bool:
    """Whether rows are idle while samples wait at other slots."""
    if self._orders or self._cut():
      return False
    left, waiting = self._left(range(self.shape.slots)), self.waiting
    some = self.shape.size // 16
    is_uneven = min(self.shape.size - (left - waiting), waiting) > some
    # Not again at once, where samples could not be shared out better.
    if not is_uneven or left > self._evened - some:
      return False
    self._evened = left
    return True

  def rearrange(self, shape: TableShape) -> tuple[Move, Slots] | None:
    """Shares out evenly what is left, in a table of the same or smaller size.

    To be called at the end of the list. Calls may be under way as long as
    nothing waits: their rows are known then, and are moved after them.

    Args:
      shape: Of the new table.

    Returns:
      What the device moves, and what the slots hold; None, with nothing
      changed, where it does not fit.
    """
    owners: Owners = [[None] * BUFFERS for _ in range(shape.slots)]
    buffers = (shape.slots, BUFFERS)
    slots, rows = idle_state(shape)
    move = Move(
      slot_QE=np.zeros(buffers, np.int32),
      buffer_QE=np.zeros(buffers, np.int32),
      row_B=np.zeros(shape.size, np.int32),
      entry_QR=rows.entry_QR,
    )
    moved: list[tuple[Draft, int, int]] = []
    olds, news = self._shards_of(self.shape), self._shards_of(shape)
    for old, new in zip(olds, news, strict=True):
      placed = share_out(self.owners, old, new, shape)
      if placed is None:
        return None
      for (q, e), (slot, buffer), part in placed:
        owners[q][e] = part
        move.slot_QE[q, e], move.buffer_QE[q, e] = slot - old.start, buffer
        self._describe(part, slots, (q, e))
        other = owners[q][0]
        used = other.begun if e and other else 0
        for index, draft in enumerate(part.drafts[: part.begun]):
          row, entry = used + index, e * shape.samples + index
          move.entry_QR[q, row] = entry
          row += q * shape.rows
          move.row_B[row] = draft.row - old.start * self.shape.rows
          moved.append((draft, row, entry))
    for draft, row, entry in moved:
      draft.row, draft.entry = row, entry
    self.shape, self.owners = shape, owners
    self._free.clear()  # Nothing is left to be loaded.
    return move, slots

  def _shards_of(self, shape: TableShape) -> list[range]:
    """Returns the slots of each shard."""
    size = shape.slots // self._shards
    return [range(i * size, (i + 1) * size) for i in range(self._shards)]

  def _left(self, slots: range) -> int:
    """Returns how many samples of some slots are not done."""
    return sum(o.left for slot in slots for o in self.owners[slot] if o)

  def _describe(self, order: Order, slots: Slots, at: tuple[int, int]) -> None:
    """Writes an order into the state of its buffer."""
    samples, limits = self._samples(order)
    slots.length_QE[at] = len(order.ask.tokens) - 1
    slots.last_QE[at] = order.ask.tokens[-1]
    slots.key_QEW[at] = random_key(self._seed, order.ask.key)
    slots.sample_QEI[at][: len(samples)] = samples
    slots.limit_QEI[at][: len(samples)] = limits
    slots.count_QE[at], slots.next_QE[at] = len(samples), order.begun

  def _starves(self) -> bool:
    """Whether a slot with a free buffer has no samples for its next row."""
    return any(
      not any(order and order.waiting for order in self.owners[slot])
      for slot, _ in self._free
    )

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

  def _pack(self, sources, batch) -> Load:
    count, width = self._questions, self._width(sources[0])
    places, copies = self.shape.samples, _COPIES * count

    def zeros(*axes: int) -> np.ndarray:
      return np.zeros(axes, np.int32)

    tokens_XT, length_X, last_X = (
      zeros(count, width),
      zeros(count),
      zeros(count),
    )
    for x, ask in enumerate(sources):
      tokens_XT[x, : len(ask.tokens) - 1] = ask.tokens[:-1]
      length_X[x], last_X[x] = len(ask.tokens) - 1, ask.tokens[-1]
    source_Y, buffer_Y, count_Y = zeros(copies), zeros(copies), zeros(copies)
    slot_Y = zeros(copies) + self.shape.slots
    key_YW = np.zeros((copies, 2), np.uint32)
    sample_YI, limit_YI = zeros(copies, places), zeros(copies, places)
    for y, (order, x, target) in enumerate(batch):
      samples, limits = self._samples(order)
      n = len(samples)
      source_Y[y], count_Y[y] = x, n
      slot_Y[y], buffer_Y[y] = divmod(target, BUFFERS)
      key_YW[y] = random_key(self._seed, order.ask.key)
      sample_YI[y, :n], limit_YI[y, :n] = samples, limits
    return Load._make(
      [
        *(tokens_XT, length_X, last_X, source_Y, slot_Y),
        *(buffer_Y, key_YW, sample_YI, limit_YI, count_Y),
      ]
    )

  def _width(self, ask: Ask) -> int:
    """Returns the width that a question is prefilled at: a function of it."""
    tokens = len(ask.tokens) - 1
    return next(w for w in widths(self.shape.question) if w >= tokens)

  def _samples(self, order: Order) -> tuple[list[int], list[int]]:
    ask = order.ask
    limits = ask.limits or (self._limit,) * len(ask.samples)
    places = [draft.place for draft in order.drafts]
    return (
      [ask.samples[p] for p in places],
      [min(limits[p], self._limit) for p in places],
    )


def random_key(seed: int, key: tuple[int, ...] | int) -> np.ndarray:
  """Returns the two words of a threefry key for (seed, key)."""
  words = (key,) if isinstance(key, int) else tuple(key)
  digest = hashlib.blake2b(repr((seed, words)).encode(), digest_size=8)
  return np.frombuffer(digest.digest(), np.dtype('<u4'))
