"""What moves when the table is rearranged: the host shares out, devices move.

At the end of the list rows fall idle, and nothing is left to be loaded. What is
left is shared out anew among the slots, of the same table or of a smaller one.
"""

import bisect
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from rest.sampler.order import Draft, Order, Owners
from rest.sampler.table import (
  BUFFERS,
  ROWS,
  SPECS,
  Array,
  LayerCache,
  Rows,
  TableShape,
)

Buffer = tuple[int, int]  # A slot, and which of its buffers.


class Placed(NamedTuple):
  """An order of the rearranged table.

  Attributes:
    buffer: That it goes to.
    source: The old buffer, which holds its question.
    order: Of drafts that may come from several old buffers.
  """

  buffer: Buffer
  source: Buffer
  order: Order


class Move(NamedTuple):
  """Where slots and rows of a rearranged table come from.

  Numbers of slots and rows count from the first of the device's own.

  Attributes:
    slot_QE: The slot that each buffer was in.
    buffer_QE: Which of its buffers it was.
    row_B: Which row each was.
    entry_QR: What it draws for from now on; -1 for none.
  """

  slot_QE: Array
  buffer_QE: Array
  row_B: Array
  entry_QR: Array


class _Left(NamedTuple):
  """What is left of an ask, and a buffer that holds its question."""

  source: Buffer
  order: Order


def share_out(
  owners: Owners, old: range, new: range, shape: TableShape
) -> list[Placed] | None:
  """Returns what goes where, or None where it does not fit.

  What is left of an ask, in however many slots, is put together first. A slot
  gets the smallest of these, and then as much of the largest as there is room
  for. So slots are filled to the last row, if asks are no more than slots.
  Where they are more, the second is one that fits as it is.

  Invariant: each draft that is not done is in one order, and a slot has a row
  for each of its drafts that have begun. Examples, for 2 slots of 4 rows: of
  asks with 2 and 6 samples left, slot 0 gets 2 and 2, slot 1 the other 4; of
  1, 3 and 4 left, slot 0 gets the 1 and the 3, slot 1 the 4.

  Args:
    owners: Of all buffers.
    old: Slots whose samples are shared out.
    new: Slots that they go to.
    shape: Of the new table.
  """
  left = _by_ask(owners, old)
  share = max(shape.rows, -(-sum(map(_size, left)) // len(new)))
  placed: list[Placed] = []
  for slot in new:
    samples, rows = share, shape.rows
    for buffer in range(BUFFERS):
      if not left or not samples:
        break
      source, order = left.pop(_next(left, buffer, samples, new.stop - slot))
      part, rest = _split(order, min(samples, shape.samples), rows)
      if rest.left:
        bisect.insort(left, _Left(source, rest), key=_size)
      if not part.left:
        break
      placed.append(Placed((slot, buffer), source, part))
      samples -= part.left
      rows -= part.begun
  return None if left else placed


@functools.partial(jax.jit, static_argnames='mesh')
def move_cache(cache: LayerCache, move: Move, mesh: Mesh) -> LayerCache:
  """Returns a layer's cache in a rearranged table; one at a time, for memory.

  Args:
    cache: Of one layer.
    move: What is kept.
    mesh: No device takes slots or rows from another.
  """

  def local(cache: LayerCache, move: Move) -> LayerCache:
    at = (move.slot_QE, move.buffer_QE)
    return cache._replace(
      k1_QEKHS=cache.k1_QEKHS[at],
      v1_QEKSH=cache.v1_QEKSH[at],
      k2=cache.k2[move.row_B],
      v2_BKSH=cache.v2_BKSH[move.row_B],
    )

  specs = LayerCache._make(SPECS)
  return jax.shard_map(
    local,
    mesh=mesh,
    in_specs=(specs, PartitionSpec(ROWS)),
    out_specs=specs,
    check_vma=False,
  )(cache, move)


@functools.partial(jax.jit, static_argnames='mesh')
def move_rows(rows: Rows, move: Move, mesh: Mesh) -> Rows:
  """Returns the rows of a rearranged table; those that have ended stay idle.

  Args:
    rows: As the calls under way leave them.
    move: What is kept.
    mesh: As in `move_cache`.
  """

  def local(rows: Rows, move: Move) -> Rows:
    old = Rows._make(
      x.reshape(-1)[move.row_B].reshape(move.entry_QR.shape) for x in rows
    )
    is_drawn_QR = (old.entry_QR >= 0) & (move.entry_QR >= 0)
    return old._replace(entry_QR=jnp.where(is_drawn_QR, move.entry_QR, -1))

  by_slot = PartitionSpec(ROWS)
  return jax.shard_map(
    local,
    mesh=mesh,
    in_specs=(by_slot, by_slot),
    out_specs=by_slot,
    check_vma=False,
  )(rows, move)


def _by_ask(owners: Owners, slots: range) -> list[_Left]:
  """Returns what is left of each ask, by size.

  Asks that go on where another table ended may have one index.
  """
  found: dict[int, tuple[_Left, list[Draft]]] = {}
  for slot in slots:
    for buffer, order in enumerate(owners[slot]):
      if order:
        first = _Left((slot, buffer), order)
        _, drafts = found.setdefault(id(order.ask), (first, []))
        drafts.extend(draft for draft in order.drafts if not draft.is_done)
  for _, drafts in found.values():
    drafts.sort(key=lambda draft: draft.row < 0)  # What has begun first.
  left = [
    _Left(source, _order(order, drafts))
    for (source, order), drafts in found.values()
  ]
  return sorted(left, key=_size)


def _size(left: _Left) -> int:
  return left.order.left


def _next(left: list[_Left], buffer: int, samples: int, slots: int) -> int:
  """Returns which ask a slot gets next, by place.

  Args:
    left: By size.
    buffer: Of the slot; the first gets the smallest.
    samples: How many more the slot takes.
    slots: How many slots are not full, this one included.
  """
  if not buffer:
    return 0
  is_crowded = len(left) >= slots
  if is_crowded and _size(left[0]) <= samples:
    return bisect.bisect_right(left, samples, key=_size) - 1
  return -1


def _split(order: Order, samples: int, rows: int) -> tuple[Order, Order]:
  """Returns a part of an order, and the rest of it.

  Args:
    order: Its drafts that have begun come first; none is done.
    samples: Most drafts of the part.
    rows: Most of them that have begun: each needs a row.
  """
  begun = min(order.begun, rows, samples)
  waiting = min(order.waiting, samples - begun)
  first, then = order.drafts[: order.begun], order.drafts[order.begun :]
  return (
    _order(order, first[:begun] + then[:waiting]),
    _order(order, first[begun:] + then[waiting:]),
  )


def _order(order: Order, drafts: list[Draft]) -> Order:
  """Returns an order of some of an ask's drafts, none of which is done."""
  waiting = sum(draft.row < 0 for draft in drafts)
  return Order(order.index, order.ask, drafts, len(drafts), waiting)
