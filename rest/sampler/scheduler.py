"""The host's side of the table: which question goes where, what came back."""

import hashlib
from collections import deque
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rest.sampler.capacity import widths
from rest.sampler.order import Ask, Draft, Held, Order, Owners, Track
from rest.sampler.placing import COPIES, Buffer, Filled, Placing
from rest.sampler.queue import Queue
from rest.sampler.rearrange import Move, Placed, share_out
from rest.sampler.stops import Stops
from rest.sampler.table import (
  BUFFERS,
  Drawn,
  Load,
  Slots,
  TableShape,
  idle_load,
  idle_state,
)

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
      asks: With their index.
      chunk: Most samples in an order.
      questions: Questions in a load, the same number for each shard.
      limit: Most tokens that are drawn of a completion.
      seed: Of all random numbers.
      withdrawn: Indices of asks that no more is wanted of; may grow.
      shards: Into how many parts the devices split slots; each keeps its own.
    """
    self.shape = shape
    self.owners: Owners = [[None] * BUFFERS for _ in range(shape.slots)]
    self._track = Track(shape.size, limit)
    self._queue = Queue(asks, chunk, withdrawn)
    self._questions = questions
    self._limit = limit
    self._seed = seed
    self._withdrawn = withdrawn
    self._shards = shards
    self._withdrawals = 0  # How many of them are done with.
    self._evened = 1 << 30  # Samples left when rows were last shared out.
    self._free: list[deque[Buffer]] = [  # By shard.
      deque((slot, buffer) for buffer in range(BUFFERS) for slot in slots)
      for slots in self._slots_of(shape)
    ]

  @property
  def longest(self) -> int:
    """Tokens of the longest draft that is not done."""
    return self._track.longest

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
    free = sum(map(len, self._free))
    if not free or not self._queue.has_next():
      return None
    if free < self._questions and not self._starves():
      return None
    left = [self._left(slots) for slots in self._slots_of(self.shape)]
    placing = Placing(self._free, left, self._questions // self._shards)
    ahead = _AHEAD * self._questions
    width = self._queue.take(self._width, placing.add, ahead)
    return self._pack(placing.filled, width)

  def held(self) -> Held:
    """Returns who holds buffers and rows, for a call that is made now."""
    return Held([list(slot) for slot in self.owners], self._track)

  def collect(
    self, held: Held, drawn: Drawn, stops: Stops
  ) -> Iterator[tuple[Draft, int, bool]]:
    """Files a call's tokens; yields the drafts that are over.

    Invariant: a draft's tokens are those of its entry, in order, however many
    calls and rows of other samples lie between. The table may have been
    rearranged since the call was made: `held` says what its rows were then.
    Example: with I = 8 and 2 rows a slot, entry 9 in row 2 of the call is the
    draft 1 of the order that buffer 1 of slot 1 held. Rows that only go on are
    not looked at: of 2,048, a tenth has something to tell in a call.

    Args:
      held: Who held buffers and rows when the call was made.
      drawn: By the call, in NumPy.
      stops: Finds stop strings.

    Returns:
      An iterator over drafts, the step of the call's track behind their last
      token, and whether the device knows that they are over: it has not seen a
      stop string.
    """
    token_TB, logprob_TB, entry_TB, ended_TB = (
      np.asarray(x).reshape(len(x), -1) for x in drawn
    )
    owners, track = held
    before = track.steps
    track.file(token_TB, logprob_TB)
    if track is not self._track:  # The new table's rows have drawn these, too.
      self._track.begun_B -= len(token_TB)
    may_end_TB = stops.may_end(token_TB)
    tells_TB = ended_TB | may_end_TB | (entry_TB != track.entry_B)
    telling = np.flatnonzero(tells_TB.any(axis=0))
    rows = len(track.drafts) // len(owners)  # Of a slot.
    for i, entry, start, stop in stretches(entry_TB[:, telling].T):
      row = int(telling[i])
      draft = track.drafts[row] if entry == track.entry_B[row] else None
      if draft is None:
        buffer, index = divmod(entry, self.shape.samples)
        order = owners[row // rows][buffer]
        assert order is not None
        draft = order.drafts[index]
        if not draft.is_done:
          order.waiting -= 1
          draft.row, draft.entry = row, entry
          track.begin(draft, before + start)
      if draft.is_done:
        continue  # The host ended it; the device did not know yet.
      end = before + stop
      if ended_TB[stop - 1, row]:
        track.forget(row)
        yield draft, end, True
      elif may_end_TB[start:stop, row].any() and stops.has_stop(
        draft, track, end, stop - start
      ):
        track.forget(row)
        yield draft, end, False

  def close(self, draft: Draft) -> Order:
    """Marks a draft as done; its buffer falls free with its last one.

    Returns:
      The order that it was part of.
    """
    slot = draft.row // self.shape.rows
    buffer = draft.entry // self.shape.samples
    order = self.owners[slot][buffer]
    assert order is not None
    self._end(draft)
    order.left -= 1
    if not order.left:
      self.owners[slot][buffer] = None
      self._set_free(slot, buffer)
    return order

  def withdraw(self) -> NDArray[np.bool_]:
    """Forgets the asks that were withdrawn, and frees their buffers.

    Returns:
      is_over_QE. The next call must have it, before any load fills a buffer.
    """
    is_over_QE = np.zeros((self.shape.slots, BUFFERS), bool)
    if len(self._withdrawn) == self._withdrawals:
      return is_over_QE
    self._withdrawals = len(self._withdrawn)
    self._queue.forget()
    for slot, orders in enumerate(self.owners):
      for buffer, order in enumerate(orders):
        if order is None or order.index not in self._withdrawn:
          continue
        for draft in order.drafts:
          if not draft.is_done:
            self._end(draft)
        is_over_QE[slot, buffer] = True
        orders[buffer] = None
        self._set_free(slot, buffer)
    return is_over_QE

  def fits(self, shape: TableShape) -> bool:
    """Whether all that is left could be at work in a table, none waiting."""
    if self._queue.has_next():
      return False
    room = shape.size // self._shards
    return all(self._left(s) <= room for s in self._slots_of(self.shape))

  def is_uneven(self) -> bool:
    """Whether rows are idle while samples wait at other slots."""
    if self._queue.has_next():
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

    Invariant: a slot's rows are taken by what has begun in its first buffer,
    and then in its second; what waits follows in the buffers' lists. Example:
    with 4 rows and I = 8, orders of 1 and of 2 drafts, all of which have begun,
    take the rows 0, 1 and 2 for the entries 0, 8 and 9.

    Args:
      shape: Of the new table.

    Returns:
      What the device moves, and what the slots hold; None, with nothing
      changed, where it does not fit.
    """
    placed: list[Placed] = []
    olds, news = self._slots_of(self.shape), self._slots_of(shape)
    for old, new in zip(olds, news, strict=True):
      shared = share_out(self.owners, old, new, shape)
      if shared is None:
        return None
      placed += shared
    owners: Owners = [[None] * BUFFERS for _ in range(shape.slots)]
    track = Track(shape.size, self._limit)
    slots, rows = idle_state(shape)
    move = Move(
      slot_QE=np.zeros_like(slots.count_QE),
      buffer_QE=np.zeros_like(slots.count_QE),
      row_B=np.zeros(shape.size, np.int32),
      entry_QR=rows.entry_QR,
    )
    for one in placed:
      q, e = one.buffer
      first = owners[q][0]
      self._move(one, move, shape, first.begun if first else 0, track)
      self._describe(one.order, slots, one.buffer)
      owners[q][e] = one.order
    self.shape, self.owners, self._track = shape, owners, track
    self._free = [deque() for _ in self._free]  # Nothing is left to be loaded.
    return move, slots

  def _move(
    self,
    placed: Placed,
    move: Move,
    shape: TableShape,
    used: int,
    track: Track,
  ) -> None:
    """Writes where an order comes from; its drafts learn their new rows.

    Args:
      placed: The order, in the place of the new table.
      move: What is written to.
      shape: Of the new table.
      used: Rows of the slot that are taken.
      track: Of the new table.
    """
    (q, e), (slot, buffer), order = placed
    own = self._own
    move.slot_QE[q, e], move.buffer_QE[q, e] = slot % own, buffer
    for index, draft in enumerate(order.drafts[: order.begun]):
      row, entry = used + index, e * shape.samples + index
      move.entry_QR[q, row] = entry
      row += q * shape.rows
      move.row_B[row] = draft.row % (own * self.shape.rows)
      length = self._track.steps - int(self._track.begun_B[draft.row])
      draft.row, draft.entry = row, entry
      track.begin(draft, 0, length)

  @property
  def _own(self) -> int:
    """Slots of a shard."""
    return self.shape.slots // self._shards

  def _slots_of(self, shape: TableShape) -> list[range]:
    """Returns the slots of each shard."""
    size = shape.slots // self._shards
    return [range(i * size, (i + 1) * size) for i in range(self._shards)]

  def _left(self, slots: range) -> int:
    """Returns how many samples of some slots are not done."""
    return sum(o.left for slot in slots for o in self.owners[slot] if o)

  def _describe(self, order: Order, slots: Slots, at: tuple[int, int]) -> None:
    """Writes an order into the state of its buffer."""
    slots.length_QE[at] = len(order.ask.tokens) - 1
    slots.last_QE[at] = order.ask.tokens[-1]
    slots.begun_QE[at] = order.ask.drawn
    slots.key_QEW[at] = random_key(self._seed, order.ask.key)
    slots.sample_QEI[at], slots.limit_QEI[at] = self._samples(order)
    slots.count_QE[at], slots.next_QE[at] = len(order.drafts), order.begun

  def _starves(self) -> bool:
    """Whether a slot with a free buffer has no samples for its next row."""
    return any(
      not any(order and order.waiting for order in self.owners[slot])
      for own in self._free
      for slot, _ in own
    )

  def _end(self, draft: Draft) -> None:
    """Wants no more of a draft, though calls under way may bring some."""
    draft.is_done = True
    draft.spans.clear()
    if draft.row >= 0:
      self._track.forget(draft.row)

  def _set_free(self, slot: int, buffer: int) -> None:
    self._free[slot // self._own].append((slot, buffer))

  def _pack(self, filled: list[Filled], width: int) -> Load:
    """Writes down who has which buffer; returns orders as arrays.

    Invariant: all shapes are fixed but for the width of the questions, so that
    few programs serve all lengths. Example: with 2 questions in a load, at most
    8 buffers are filled; of 3 orders, the other 5 have slot Q, which is none.

    Args:
      filled: Buffers, and the orders that go there.
      width: Of the questions.
    """
    load: Any = idle_load(
      self._questions,
      COPIES * self._questions,
      self.shape.samples,
      width,
      self._own,
    )
    for order, (slot, buffer), x, y in filled:
      self.owners[slot][buffer] = order
      *tokens, last = order.ask.tokens
      load.tokens_XT[x, : len(tokens)] = tokens
      load.length_X[x], load.last_X[x] = len(tokens), last
      load.source_Y[y] = x % (self._questions // self._shards)
      load.slot_Y[y], load.buffer_Y[y] = slot % self._own, buffer
      load.key_YW[y] = random_key(self._seed, order.ask.key)
      load.sample_YI[y], load.limit_YI[y] = self._samples(order)
      load.begun_Y[y] = order.ask.drawn
      load.count_Y[y] = len(order.drafts)
    return load

  def _width(self, ask: Ask) -> int:
    """Returns the width that a question is prefilled at: a function of it."""
    tokens = len(ask.tokens) - 1
    return next(w for w in widths(self.shape.question) if w >= tokens)

  def _samples(self, order: Order) -> NDArray[np.int32]:
    """Returns which samples an order is of, and how many tokens of each."""
    ask = order.ask
    limits = ask.limits or (ask.drawn + self._limit,) * len(ask.samples)
    found = np.zeros((2, self.shape.samples), np.int32)
    for place, draft in enumerate(order.drafts):
      found[0, place] = ask.samples[draft.place]
      found[1, place] = min(limits[draft.place] - ask.drawn, self._limit)
    return found


def stretches(
  entry_BT: NDArray[np.int32],
) -> Iterator[tuple[int, int, int, int]]:
  """Yields where rows drew for one entry: row, entry, first step, last + 1.

  Example: of a row that is idle and then starts on entry 2, and one that ends
  entry 6 and goes on with 9, [[-1, 2, 2], [6, 6, 9]], come (0, 2, 1, 3),
  (1, 6, 0, 2) and (1, 9, 2, 3).
  """
  is_first_BT = np.ones(entry_BT.shape, bool)
  is_first_BT[:, 1:] = entry_BT[:, 1:] != entry_BT[:, :-1]
  row, start = np.nonzero(is_first_BT)
  stop = np.roll(start, -1)
  stop[stop == 0] = entry_BT.shape[1]  # The next one begins another row.
  entry = entry_BT[row, start]
  found = np.stack([row, entry, start, stop], axis=1)[entry >= 0]
  yield from map(tuple, found.tolist())


def random_key(seed: int, key: tuple[int, ...] | int) -> NDArray[np.uint32]:
  """Returns the two words of a threefry key for (seed, key)."""
  words = (key,) if isinstance(key, int) else tuple(key)
  digest = hashlib.blake2b(repr((seed, words)).encode(), digest_size=8)
  return np.frombuffer(digest.digest(), np.dtype('<u4'))
