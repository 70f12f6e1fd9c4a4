"""The table of the sampler: Q prompt slots of R rows, three levels of KV.

Level 0 is the prefix that all prompts share, level 1 the questions, of which a
slot holds two, level 2 the private suffix of each row. A suffix begins with
the question's last token, so that a sample's first token comes out of the same
step as all others. Letters beside those of `rest.types`:

  E question buffers of a slot (2)    I places in a buffer's list of samples
  W words of a random key (2)
"""

import functools
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rest.model.hardware import runs_kernels
from rest.model.transformer import ModelConfig

BUFFERS = 2
ROWS = ('data', 'fsdp')  # Mesh axes that share out slots, and so rows.


@dataclass(frozen=True, slots=True)
class TableShape:
  """The capacities of a table: what its programs are compiled for.

  Attributes:
    slots: Q, prompts that are worked on at the same time.
    rows: R, rows of a slot.
    prefix: Tokens of the prefix that fit.
    question: Tokens of a question that fit, its last one not counted.
    suffix: Tokens of a completion that fit.
    samples: I, samples that are asked of a question at once.
  """

  slots: int
  rows: int
  prefix: int
  question: int
  suffix: int
  samples: int

  @property
  def size(self) -> int:
    """Rows of the table, B."""
    return self.slots * self.rows


class LayerCache(NamedTuple):
  """Keys (rotated) and values of one layer, by level.

  Keys lie with positions last: on CPUs their product with a few queries is much
  quicker so. The kernels want each key in one piece, at least in the suffix,
  which is most of what they read: k2 is BKHS in plain XLA, BKSH for them.
  """

  k0_KHS: jax.Array
  v0_KSH: jax.Array
  k1_QEKHS: jax.Array
  v1_QEKSH: jax.Array
  k2: jax.Array
  v2_BKSH: jax.Array


# How the arrays of a LayerCache are split: rows over data, heads over tensor.
SPECS = (
  *[PartitionSpec('tensor')] * 2,
  *[PartitionSpec(ROWS, None, 'tensor')] * 2,
  *[PartitionSpec(ROWS, 'tensor')] * 2,
)


class Slots(NamedTuple):
  """What each question buffer holds and how far its samples are given out.

  Attributes:
    length_QE: Tokens of the question before its last.
    last_QE: Its last token.
    key_QEW: Its random key.
    sample_QEI: Which samples are asked.
    limit_QEI: Longest completion of each.
    count_QE: How many are asked.
    next_QE: How many were given to rows.
    front_Q: The buffer whose samples are given out first.
  """

  length_QE: jax.Array
  last_QE: jax.Array
  key_QEW: jax.Array
  sample_QEI: jax.Array
  limit_QEI: jax.Array
  count_QE: jax.Array
  next_QE: jax.Array
  front_Q: jax.Array


class Rows(NamedTuple):
  """What each row is doing.

  Attributes:
    entry_QR: buffer * I + place in its list; -1 where the row is idle.
    token_QR: The token to read next.
    drawn_QR: Tokens of the completion so far; 0 where the row is idle.
  """

  entry_QR: jax.Array
  token_QR: jax.Array
  drawn_QR: jax.Array


class Table(NamedTuple):
  """All that a decoding call changes. It is donated, and comes back."""

  caches: list[LayerCache]
  slots: Slots
  rows: Rows


class Load(NamedTuple):
  """Questions for buffers, padded: those with slot Q go nowhere.

  The letter X runs over questions prefilled, Y over buffers filled: a question
  that goes to several slots is prefilled once.
  """

  tokens_XT: jax.Array
  length_X: jax.Array  # Without the last token, which rows read.
  last_X: jax.Array
  source_Y: jax.Array
  slot_Y: jax.Array
  buffer_Y: jax.Array
  key_YW: jax.Array
  sample_YI: jax.Array
  limit_YI: jax.Array
  count_Y: jax.Array


class Dropped(NamedTuple):
  """What the host wants no more of.

  Attributes:
    entry_QR: The entry of each row that must stop; -1 for none.
    is_over_QE: Whether nothing of a buffer is wanted, begun or not.
  """

  entry_QR: jax.Array | np.ndarray
  is_over_QE: jax.Array | np.ndarray


class Move(NamedTuple):
  """Where slots and rows of a rearranged table come from.

  Numbers of slots and rows count from the first of the device's own.

  Attributes:
    slot_QE: The slot that each buffer was in.
    buffer_QE: Which of its buffers it was.
    row_B: Which row each was.
    entry_QR: What it draws for from now on; -1 for none.
  """

  slot_QE: jax.Array | np.ndarray
  buffer_QE: jax.Array | np.ndarray
  row_B: jax.Array | np.ndarray
  entry_QR: jax.Array | np.ndarray


@functools.partial(jax.jit, static_argnames=('config', 'shape', 'mesh'))
def empty_table(config: ModelConfig, shape: TableShape, mesh: Mesh) -> Table:
  """Returns a table with idle rows and nothing to do."""
  dtype = jnp.dtype(config.dtype)

  def layer() -> LayerCache:
    k, h = config.kv_heads, config.head_width

    def level(axes: tuple[int, ...], length: int) -> tuple[jax.Array, ...]:
      return (
        jnp.zeros((*axes, k, h, length), dtype),
        jnp.zeros((*axes, k, length, h), dtype),
      )

    k2, v2 = level((shape.size,), shape.suffix)
    k2 = jnp.zeros_like(v2) if has_kernels(config, mesh) else k2
    prefix = level((), shape.prefix)
    question = level((shape.slots, BUFFERS), shape.question)
    return LayerCache._make([*prefix, *question, k2, v2])

  table = Table(
    [layer() for _ in range(config.layers)],
    *jax.tree.map(jnp.asarray, idle_state(shape)),
  )
  return jax.lax.with_sharding_constraint(table, table_shardings(table, mesh))


def has_kernels(config: ModelConfig, mesh: Mesh) -> bool:
  """Whether the kernels run on a mesh's devices."""
  platform = mesh.devices.flat[0].platform
  return runs_kernels(platform, config.dtype, config.head_width)


def idle_state(shape: TableShape) -> tuple[Slots, Rows]:
  """Returns, in NumPy, slots with nothing asked and rows at rest."""
  q, r, e, i = shape.slots, shape.rows, BUFFERS, shape.samples

  def zeros(*axes: int) -> np.ndarray:
    return np.zeros(axes, np.int32)

  slots = Slots._make(
    [
      *(zeros(q, e), zeros(q, e), np.zeros((q, e, 2), np.uint32)),
      *(zeros(q, e, i), zeros(q, e, i)),
      *(zeros(q, e), zeros(q, e), zeros(q)),
    ]
  )
  return slots, Rows._make([zeros(q, r) - 1, zeros(q, r), zeros(q, r)])


def table_shardings(table: Table, mesh: Mesh) -> Table:
  """Returns each array's sharding: slots and rows on data, K on tensor."""

  layer = LayerCache._make(NamedSharding(mesh, spec) for spec in SPECS)
  rows = NamedSharding(mesh, PartitionSpec(ROWS))
  return Table(
    [layer for _ in table.caches],
    Slots._make(rows for _ in table.slots),
    Rows._make(rows for _ in table.rows),
  )


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
  rows = Rows(
    jnp.where(
      starts_QR, buffer_QR * slots.sample_QEI.shape[2] + place_QR, rows.entry_QR
    ),
    jnp.where(starts_QR, pick(slots.last_QE, buffer_QR), rows.token_QR),
    jnp.where(idle_QR, 0, rows.drawn_QR),
  )
  given_QE = jnp.stack(
    [(starts_QR & (buffer_QR == e)).sum(axis=1) for e in range(BUFFERS)], axis=1
  )
  started_Q = starts_QR.sum(axis=1)
  turns_Q = (started_Q >= front_Q) & (back_Q > started_Q - front_Q)
  slots = slots._replace(
    next_QE=slots.next_QE + given_QE.astype(jnp.int32),
    front_Q=jnp.where(turns_Q, 1 - slots.front_Q, slots.front_Q),
  )
  return slots, rows


def pick(value_QE: jax.Array, buffer_QR: jax.Array) -> jax.Array:
  """Returns value_QR: of each row's buffer."""
  return jnp.where(buffer_QR > 0, value_QE[:, 1:], value_QE[:, :1])


def fill(
  table: Table,
  load: Load,
  levels: list[tuple[jax.Array, jax.Array]],
) -> Table:
  """Returns the table with questions in the buffers that the load names.

  Args:
    table: Donated by the caller's jit.
    load: What goes where.
    levels: Per layer, keys and values of the load's questions, k_XKHT, v_XKTH.
  """
  at = (load.slot_Y, load.buffer_Y)
  width = load.tokens_XT.shape[1]

  def put(old, new_Y):
    return old.at[at].set(new_Y, mode='drop')

  def put_level(cache, k_XKHT, v_XKTH):
    k_YKHT = k_XKHT[load.source_Y].astype(cache.k1_QEKHS.dtype)
    v_YKTH = v_XKTH[load.source_Y].astype(cache.v1_QEKSH.dtype)
    return cache._replace(
      k1_QEKHS=cache.k1_QEKHS.at[*at, :, :, :width].set(k_YKHT, mode='drop'),
      v1_QEKSH=cache.v1_QEKSH.at[*at, :, :width].set(v_YKTH, mode='drop'),
    )

  caches = [
    put_level(cache, *level)
    for cache, level in zip(table.caches, levels, strict=True)
  ]
  old = table.slots
  slots = Slots(
    length_QE=put(old.length_QE, load.length_X[load.source_Y]),
    last_QE=put(old.last_QE, load.last_X[load.source_Y]),
    key_QEW=put(old.key_QEW, load.key_YW),
    sample_QEI=put(old.sample_QEI, load.sample_YI),
    limit_QEI=put(old.limit_QEI, load.limit_YI),
    count_QE=put(old.count_QE, load.count_Y),
    next_QE=put(old.next_QE, jnp.zeros_like(load.count_Y)),
    front_Q=old.front_Q,
  )
  return Table(caches, slots, table.rows)


@functools.partial(jax.jit, static_argnames='mesh')
def move_cache(cache: LayerCache, move: Move, mesh: Mesh) -> LayerCache:
  """Returns a layer's cache in a rearranged table; one at a time, for memory.

  Args:
    cache: Of one layer.
    move: What is kept.
    mesh: No device takes slots or rows from another.
  """

  def local(cache, move):
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

  def local(rows, move):
    old = Rows._make(
      x.reshape(-1)[move.row_B].reshape(move.entry_QR.shape) for x in rows
    )
    is_drawn_QR = (old.entry_QR >= 0) & (move.entry_QR >= 0)
    return old._replace(entry_QR=jnp.where(is_drawn_QR, move.entry_QR, -1))

  places = PartitionSpec(ROWS)
  return jax.shard_map(
    local,
    mesh=mesh,
    in_specs=(places, places),
    out_specs=places,
    check_vma=False,
  )(rows, move)
