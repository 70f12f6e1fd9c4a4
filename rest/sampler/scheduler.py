"""The host's side of the table: which question goes where, what came back."""

import hashlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from rest.sampler.cache import (
  BUFFERS,
  Load,
  Move,
  Rows,
  Slots,
  TableShape,
  idle,
)


@dataclass(frozen=True, slots=True)
class Ask:
  """Samples wanted of one problem.

  Attributes:
    key: Names the problem for the random numbers: the same key gives the same
      samples, whatever else is asked.
    tokens: The question, which follows the prefix; at least one token.
    samples: Which samples to draw.
    limits: Longest completion of each sample; () is the sampler's limit for
      all. For loads with imposed lengths.
  """

  key: tuple[int, ...] | int
  tokens: tuple[int, ...]
  samples: tuple[int, ...]
  limits: tuple[int, ...] = ()


@dataclass(slots=True)
class Draft:
  """A completion that is being drawn."""

  tokens: list[int] = field(default_factory=list)
  logprobs: list[float] = field(default_factory=list)
  row: int = 0  # Of the table, where it was last seen.
  is_done: bool = False


@dataclass(slots=True)
class Order:
  """Some samples of an ask, as they go into a buffer.

  Attributes:
    index: Of the ask.
    ask: What is asked.
    places: Which of the ask's samples, by place.
    drafts: One a place.
    left: Drafts not done.
    waiting: Drafts that no row has begun, as far as the host knows.
  """

  index: int
  ask: Ask
  places: tuple[int, ...]
  drafts: list[Draft]
  left: int
  waiting: int


@dataclass(frozen=True, slots=True)
class Place:
  """Where a draft is: what a stop must reach."""

  order: Order
  place: int
  slot: int
  row: int
  entry: int


Owners = list[list[Order | None]]


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
  ):
    """Starts with empty buffers.

    Args:
      shape: Of the table.
      asks: With their index; may be lazy.
      chunk: Most samples in an order.
      questions: Questions in a load.
      limit: Longest completion.
      seed: Of all random numbers.
    """
    self.shape = shape
    self.owners: Owners = [[None] * BUFFERS for _ in range(shape.slots)]
    self._asks = asks
    self._chunk = chunk
    self._questions = questions
    self._limit = limit
    self._seed = seed
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

  def load(self) -> Load | None:
    """Returns the next questions for the free buffers, or None.

    A load is a batch of fixed size, so it waits for as many free buffers,
    except when a slot has nothing to do.
    """
    if not self._free or not (self._orders or self._cut()):
      return None
    if len(self._free) < self._questions and not self._starves():
      return None
    batch: list[tuple[Order, int, int]] = []
    sources: list[Ask] = []
    while self._free and len(batch) < self._questions:
      if not self._orders and not self._cut():
        break
      order = self._orders[0]
      if sources and _width(order.ask, self.shape) != _width(
        sources[0], self.shape
      ):
        break  # Prefilled at another width, so that its bits stay its own.
      self._orders.popleft()
      slot, buffer = self._free.popleft()
      self.owners[slot][buffer] = order
      if not sources or sources[-1] is not order.ask:
        sources.append(order.ask)
      batch.append((order, len(sources) - 1, slot * BUFFERS + buffer))
    return self._pack(sources, batch) if batch else None

  def collect(
    self, owners: Owners, tokens_TB, logprobs_TB, entry_TB, ended_TB
  ) -> Iterator[tuple[Place, bool]]:
    """Files a call's tokens; yields each draft that grew, and if it ended.

    Args:
      owners: Who held the buffers when the call was made.
      tokens_TB: What was drawn, as NumPy arrays, like the others.
      logprobs_TB: Log-probabilities.
      entry_TB: Which entry of its slot each row drew for; -1 for none.
      ended_TB: Whether that was the last token of its sample.
    """
    steps, size = entry_TB.shape
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
      slot, row = divmod(int(start) // steps, self.shape.rows)
      buffer, place = divmod(entry, self.shape.samples)
      order = owners[slot][buffer]
      assert order is not None
      draft = order.drafts[place]
      if draft.is_done:
        continue  # The host ended it at a stop; the device did not know yet.
      order.waiting -= not draft.tokens
      draft.row = slot * self.shape.rows + row
      draft.tokens.extend(tokens[start:stop].tolist())
      draft.logprobs.extend(logprobs[start:stop].tolist())
      yield Place(order, place, slot, row, entry), bool(ended[stop - 1])

  def close(self, place: Place) -> None:
    """Marks a draft as done; its buffer falls free with its last one."""
    order = place.order
    order.drafts[place.place].is_done = True
    order.left -= 1
    if not order.left:
      buffer = place.entry // self.shape.samples
      self.owners[place.slot][buffer] = None
      self._free.append((place.slot, buffer))

  def shrink(
    self, shape: TableShape, shards: int
  ) -> tuple[Move, Slots, Rows] | None:
    """Moves what is left into a smaller table, if it fits; rows and all.

    Args:
      shape: Of the smaller table.
      shards: Into how many parts the devices split slots; each keeps its own.

    Returns:
      What the device moves, and the new state; None where samples are still
      to be asked for, or do not fit. To be called with no call under way.
    """
    groups = self._groups(shape, shards)
    if groups is None:
      return None
    slots, rows = idle(shape)
    slot_Q, buffer_Q = np.zeros((2, shape.slots), np.int32)
    row_B = np.zeros(shape.size, np.int32)
    owners: Owners = [[None] * BUFFERS for _ in range(shape.slots)]
    old_slots, old_rows = self.shape.slots // shards, self.shape.size // shards
    for q, (slot, buffer, order) in groups.items():
      slot_Q[q], buffer_Q[q] = slot % old_slots, buffer
      owners[q][0] = order
      begun = len(order.drafts) - order.waiting
      slots.length_QE[q, 0] = len(order.ask.tokens) - 1
      slots.last_QE[q, 0] = order.ask.tokens[-1]
      slots.key_QEW[q, 0] = random_key(self._seed, order.ask.key)
      samples, limits = self._samples(order)
      slots.sample_QEI[q, 0, : len(samples)] = samples
      slots.limit_QEI[q, 0, : len(samples)] = limits
      slots.count_QE[q, 0], slots.next_QE[q, 0] = len(samples), begun
      for r, draft in enumerate(order.drafts[:begun]):
        row_B[q * shape.rows + r] = draft.row % old_rows
        rows.entry_QR[q, r] = r
        rows.token_QR[q, r] = draft.tokens[-1]
        rows.drawn_QR[q, r] = len(draft.tokens)
        draft.row = q * shape.rows + r
    self.shape, self.owners = shape, owners
    self._free.clear()  # Nothing is left to be loaded.
    return Move._make([slot_Q, buffer_Q, row_B]), slots, rows

  def fits(self, shape: TableShape, shards: int) -> bool:
    """Whether what is left fits a smaller table, and nothing is to come."""
    return self._groups(shape, shards) is not None

  def _groups(
    self, shape: TableShape, shards: int
  ) -> dict[int, tuple[int, int, Order]] | None:
    """Returns by new slot: the old slot and buffer, and what it works on."""
    if self._orders or self._cut():
      return None
    result = {}
    room, old = shape.slots // shards, self.shape.slots // shards
    filled = [0] * shards
    for slot, buffers in enumerate(self.owners):
      for buffer, order in enumerate(buffers):
        if order is None:
          continue
        shard = slot // old
        # Those that have begun first: the others are given out in order.
        left = [
          (place, draft)
          for place, draft in zip(order.places, order.drafts, strict=True)
          if not draft.is_done
        ]
        left.sort(key=lambda pair: not pair[1].tokens)
        for start in range(0, len(left), shape.rows):
          if filled[shard] == room:
            return None
          part = left[start : start + shape.rows]
          places = tuple(place for place, _ in part)
          drafts = [draft for _, draft in part]
          waiting = sum(not draft.tokens for draft in drafts)
          result[shard * room + filled[shard]] = (
            slot,
            buffer,
            Order(order.index, order.ask, places, drafts, len(part), waiting),
          )
          filled[shard] += 1
    return result

  def _starves(self) -> bool:
    """Whether a slot with a free buffer has no samples for its next row."""
    return any(
      not any(order and order.waiting for order in self.owners[slot])
      for slot, _ in self._free
    )

  def _cut(self) -> bool:
    """Cuts the next ask into orders; returns whether there was one."""
    for index, ask in self._asks:
      for start in range(0, len(ask.samples), self._chunk):
        places = tuple(range(len(ask.samples)))[start : start + self._chunk]
        drafts = [Draft() for _ in places]
        self._orders.append(
          Order(index, ask, places, drafts, len(drafts), len(drafts))
        )
      if ask.samples:
        return True
    return False

  def _pack(self, sources, batch) -> Load:
    count, width = self._questions, _width(sources[0], self.shape)
    places = self.shape.samples

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
    source_Y, buffer_Y, count_Y = zeros(count), zeros(count), zeros(count)
    slot_Y = zeros(count) + self.shape.slots
    key_YW = np.zeros((count, 2), np.uint32)
    sample_YI, limit_YI = zeros(count, places), zeros(count, places)
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

  def _samples(self, order: Order) -> tuple[list[int], list[int]]:
    ask = order.ask
    limits = ask.limits or (self._limit,) * len(ask.samples)
    return (
      [ask.samples[p] for p in order.places],
      [min(limits[p], self._limit) for p in order.places],
    )


def random_key(seed: int, key: tuple[int, ...] | int) -> np.ndarray:
  """Returns the two words of a threefry key for (seed, key)."""
  words = (key,) if isinstance(key, int) else tuple(key)
  digest = hashlib.blake2b(repr((seed, words)).encode(), digest_size=8)
  return np.frombuffer(digest.digest(), np.dtype('<u4'))


def _width(ask: Ask, shape: TableShape) -> int:
  """Returns the width that a question is prefilled at: a function of it."""
  width = shape.question
  while width >= 128 and width % 2 == 0 and len(ask.tokens) - 1 <= width // 2:
    width //= 2
  return width
