"""What goes in and out of a table: questions, samples for idle rows, stops."""

import jax
import jax.numpy as jnp

from rest.sampler.table import (
  BUFFERS,
  Dropped,
  LayerCache,
  Load,
  Rows,
  Slots,
  Table,
  pick,
)


def fill(
  table: Table,
  load: Load,
  levels: list[tuple[jax.Array, jax.Array]],
) -> Table:
  """Returns a shard's table with questions in the buffers that its load names.

  Invariant: what is not named stays as it is; a filled buffer has given out
  nothing. Example: with source (0, 0, 1, 0), slot (4, 5, 6, 8) and buffer
  (0, 0, 1, 0) in a table of Q = 8 slots, question 0 goes to buffer 0 of the
  slots 4 and 5, question 1 to buffer 1 of slot 6, and the fourth is padding.

  Args:
    table: Of one shard; donated by the caller's jit.
    load: What goes where.
    levels: Per layer, keys and values of the load's questions, k_XKHT, v_XKTH.
  """
  at = (load.slot_Y, load.buffer_Y)

  def put(old: jax.Array, new_Y: jax.Array) -> jax.Array:
    return old.at[at].set(new_Y, mode='drop')

  caches = [
    _put_level(cache, load, *level)
    for cache, level in zip(table.caches, levels, strict=True)
  ]
  old = table.slots
  slots = Slots(
    length_QE=put(old.length_QE, load.length_X[load.source_Y]),
    last_QE=put(old.last_QE, load.last_X[load.source_Y]),
    key_QEW=put(old.key_QEW, load.key_YW),
    sample_QEI=put(old.sample_QEI, load.sample_YI),
    limit_QEI=put(old.limit_QEI, load.limit_YI),
    begun_QE=put(old.begun_QE, load.begun_Y),
    count_QE=put(old.count_QE, load.count_Y),
    next_QE=put(old.next_QE, jnp.zeros_like(load.count_Y)),
    front_Q=old.front_Q,
  )
  return Table(caches, slots, table.rows)


def drop(slots: Slots, rows: Rows, dropped: Dropped) -> tuple[Slots, Rows]:
  """Puts rows to rest whose samples are not wanted, and gives out no more."""
  buffer_QR = jnp.maximum(rows.entry_QR, 0) // slots.sample_QEI.shape[2]
  stops_QR = rows.entry_QR == dropped.entry_QR
  stops_QR |= pick(jnp.asarray(dropped.is_over_QE), buffer_QR)
  next_QE = jnp.where(dropped.is_over_QE, slots.count_QE, slots.next_QE)
  return (
    slots._replace(next_QE=next_QE),
    rows._replace(entry_QR=jnp.where(stops_QR, -1, rows.entry_QR)),
  )


def claim(slots: Slots, rows: Rows) -> tuple[Slots, Rows]:
  """Gives idle rows the next samples of their slot.

  The front buffer's samples go first; when it has none left, the other one
  comes to the front, and the host may fill the first anew.

  Invariant: an entry is given out once, in order of the places; rows at work
  keep theirs. Example: of a slot with I = 8, rows 1 and 3 of 4 are idle; buffer
  0, in front, has given 7 of 8, buffer 1 none of 5. Row 1 takes entry 7, row 3
  takes entry 8 (place 0 of buffer 1), and buffer 1 comes to the front.
  """
  left_QE = slots.count_QE - slots.next_QE
  is_second_Q = slots.front_Q > 0
  front_Q = jnp.where(is_second_Q, left_QE[:, 1], left_QE[:, 0])
  back_Q = jnp.where(is_second_Q, left_QE[:, 0], left_QE[:, 1])
  idle_QR = rows.entry_QR < 0
  rank_QR = jnp.cumsum(idle_QR, axis=1) - 1
  takes_front_QR = idle_QR & (rank_QR < front_Q[:, None])
  starts_QR = idle_QR & (rank_QR < (front_Q + back_Q)[:, None])
  buffer_QR = jnp.where(
    takes_front_QR, slots.front_Q[:, None], 1 - slots.front_Q[:, None]
  )
  place_QR = (
    pick(slots.next_QE, buffer_QR)
    + rank_QR
    - jnp.where(takes_front_QR, 0, front_Q[:, None])
  )
  entry_QR = buffer_QR * slots.sample_QEI.shape[2] + place_QR
  rows = Rows(
    entry_QR=jnp.where(starts_QR, entry_QR, rows.entry_QR),
    token_QR=jnp.where(
      starts_QR, pick(slots.last_QE, buffer_QR), rows.token_QR
    ),
    drawn_QR=jnp.where(idle_QR, 0, rows.drawn_QR),
  )
  return _given(slots, starts_QR, buffer_QR, front_Q, back_Q), rows


def _given(
  slots: Slots,
  starts_QR: jax.Array,
  buffer_QR: jax.Array,
  front_Q: jax.Array,
  back_Q: jax.Array,
) -> Slots:
  """Counts what rows have taken; a buffer that is empty goes to the back.

  Args:
    slots: Before.
    starts_QR: Which rows have taken a sample.
    buffer_QR: Of which buffer.
    front_Q: Samples that the front buffer had left.
    back_Q: Samples that the other one had left.
  """
  given_QE = jnp.stack(
    [(starts_QR & (buffer_QR == e)).sum(axis=1) for e in range(BUFFERS)], axis=1
  )
  started_Q = starts_QR.sum(axis=1)
  turns_Q = (started_Q >= front_Q) & (back_Q > started_Q - front_Q)
  return slots._replace(
    next_QE=slots.next_QE + given_QE.astype(jnp.int32),
    front_Q=jnp.where(turns_Q, 1 - slots.front_Q, slots.front_Q),
  )


def _put_level(
  cache: LayerCache, load: Load, k_XKHT: jax.Array, v_XKTH: jax.Array
) -> LayerCache:
  """Returns a layer's cache with a load's questions."""
  at, width = (load.slot_Y, load.buffer_Y), load.tokens_XT.shape[1]
  k_YKHT = k_XKHT[load.source_Y].astype(cache.k1_QEKHS.dtype)
  v_YKTH = v_XKTH[load.source_Y].astype(cache.v1_QEKSH.dtype)
  return cache._replace(
    k1_QEKHS=cache.k1_QEKHS.at[*at, :, :, :width].set(k_YKHT, mode='drop'),
    v1_QEKSH=cache.v1_QEKSH.at[*at, :, :width].set(v_YKTH, mode='drop'),
  )
