"""What the table holds: its shape, its keys and values, and its state.

The drawing, the terms and the letters are in the package's docstring. A suffix
begins with the question's last token, so that a sample's first token comes out
of the same step as all others.
"""

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec
from numpy.typing import NDArray

from rest.model.hardware import runs_kernels
from rest.model.transformer import ModelConfig

Array = jax.Array | NDArray[Any]  # Made by the host, read on the device.

BUFFERS = 2
ROWS = ('data', 'fsdp')  # Mesh axes that share out slots, and so rows.


def shards_of(mesh: Mesh | AbstractMesh) -> int:
  """Returns into how many parts a mesh splits slots."""
  return mesh.shape['data'] * mesh.shape['fsdp']


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
  quicker so. Elsewhere each key of the suffix lies in one piece: the kernels
  want it, and TPUs write only whole pieces at once. So k2 is BKHS on CPUs, and
  BKSH else (see `positions_last`).
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
    limit_QEI: Most tokens that are drawn here of each.
    begun_QE: Tokens of the completion that the question ends with.
    count_QE: How many are asked.
    next_QE: How many were given to rows.
    front_Q: The buffer whose samples are given out first.
  """

  length_QE: jax.Array
  last_QE: jax.Array
  key_QEW: jax.Array
  sample_QEI: jax.Array
  limit_QEI: jax.Array
  begun_QE: jax.Array
  count_QE: jax.Array
  next_QE: jax.Array
  front_Q: jax.Array


class Rows(NamedTuple):
  """What each row is doing.

  Attributes:
    entry_QR: The sample, as buffer * I + place; -1 where the row is idle.
    token_QR: The token to read next.
    drawn_QR: Tokens that it drew of the completion; 0 where it is idle.
  """

  entry_QR: jax.Array
  token_QR: jax.Array
  drawn_QR: jax.Array


class Table(NamedTuple):
  """All that a decoding call changes. It is donated, and comes back."""

  caches: list[LayerCache]
  slots: Slots
  rows: Rows


class Drawn(NamedTuple):
  """What a call drew, step by step.

  Attributes:
    token_TQR: The tokens.
    logprob_TQR: Their log-probabilities.
    entry_TQR: Which entry of its slot each row drew for; -1 where it was idle.
    ended_TQR: Whether that was the last token of its sample.
  """

  token_TQR: Array
  logprob_TQR: Array
  entry_TQR: Array
  ended_TQR: Array


class Load(NamedTuple):
  """Questions for buffers: each shard of the devices has an equal part of both.

  Numbers of questions and slots count from the first of the shard's own: no
  device needs anything of another. A question that goes to several buffers of
  a shard is prefilled once.

  Attributes:
    tokens_XT: Of the questions, less the last of each, padded.
    length_X: How many.
    last_X: The last token, which rows read.
    source_Y: Which question goes to each buffer.
    slot_Y: The buffer's slot; past the shard's last where there is none to
      fill.
    buffer_Y: Which of the slot's buffers it is.
    key_YW: Likewise the following, as in `Slots`.
    sample_YI: See `Slots`.
    limit_YI: See `Slots`.
    begun_Y: See `Slots`.
    count_Y: See `Slots`.
  """

  tokens_XT: jax.Array
  length_X: jax.Array
  last_X: jax.Array
  source_Y: jax.Array
  slot_Y: jax.Array
  buffer_Y: jax.Array
  key_YW: jax.Array
  sample_YI: jax.Array
  limit_YI: jax.Array
  begun_Y: jax.Array
  count_Y: jax.Array


class Dropped(NamedTuple):
  """What the host wants no more of.

  Attributes:
    entry_QR: The entry of each row that must stop; -1 for none.
    is_over_QE: Whether nothing of a buffer is wanted, begun or not.
  """

  entry_QR: Array
  is_over_QE: Array


class Where(NamedTuple):
  """Where each row's query stands.

  Attributes:
    prefix: Tokens of the prefix, a scalar.
    question_QE: Tokens of each buffer's question before its last; 0 of one that
      no row answers, which need not be read.
    buffer_QR: Which question each row answers.
    drawn_QR: Keys of the suffix before this one.
  """

  prefix: jax.Array
  question_QE: jax.Array
  buffer_QR: jax.Array
  drawn_QR: jax.Array


def abstract_table(config: ModelConfig, shape: TableShape, mesh: Mesh) -> Table:
  """Returns shapes and places of a table's arrays."""
  table = jax.eval_shape(functools.partial(_empty, config, shape, mesh))
  return jax.tree.map(placed, table, table_shardings(config.layers, mesh))


def placed(leaf: Any, place: NamedSharding) -> jax.ShapeDtypeStruct:
  """Returns shape and place of an array, to lower a program for."""
  return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)


@functools.partial(jax.jit, static_argnames=('config', 'shape', 'mesh'))
def empty_table(config: ModelConfig, shape: TableShape, mesh: Mesh) -> Table:
  """Returns a table with idle rows and nothing to do."""
  return _empty(config, shape, mesh)


def _empty(config: ModelConfig, shape: TableShape, mesh: Mesh) -> Table:
  dtype = jnp.dtype(config.dtype)
  k, h = config.kv_heads, config.head_width

  def level(length: int, *axes: int) -> tuple[jax.Array, jax.Array]:
    return (
      jnp.zeros((*axes, k, h, length), dtype),
      jnp.zeros((*axes, k, length, h), dtype),
    )

  def layer() -> LayerCache:
    k2, v2 = level(shape.suffix, shape.size)
    k2 = k2 if positions_last(mesh) else jnp.zeros_like(v2)
    prefix = level(shape.prefix)
    return LayerCache(
      *prefix, *level(shape.question, shape.slots, BUFFERS), k2, v2
    )

  slots, rows = idle_state(shape)
  table = Table(
    [layer() for _ in range(config.layers)],
    jax.tree.map(jnp.asarray, slots),
    jax.tree.map(jnp.asarray, rows),
  )
  return jax.lax.with_sharding_constraint(
    table, table_shardings(config.layers, mesh)
  )


def positions_last(mesh: Mesh) -> bool:
  """Whether keys of the suffix are BKHS: see `LayerCache`."""
  return mesh.devices.flat[0].platform == 'cpu'


def has_kernels(config: ModelConfig, mesh: Mesh) -> bool:
  """Whether the kernels run on a mesh's devices."""
  platform = mesh.devices.flat[0].platform
  return runs_kernels(platform, config.dtype, config.head_width)


def idle_state(shape: TableShape) -> tuple[Slots, Rows]:
  """Returns, in NumPy, slots with nothing asked and rows at rest."""
  q, r, e, i = shape.slots, shape.rows, BUFFERS, shape.samples

  def zeros(*axes: int) -> Any:
    return np.zeros(axes, np.int32)

  slots = Slots(
    length_QE=zeros(q, e),
    last_QE=zeros(q, e),
    key_QEW=zeros(q, e, 2).astype(np.uint32),
    sample_QEI=zeros(q, e, i),
    limit_QEI=zeros(q, e, i),
    begun_QE=zeros(q, e),
    count_QE=zeros(q, e),
    next_QE=zeros(q, e),
    front_Q=zeros(q),
  )
  rows = Rows(
    entry_QR=zeros(q, r) - 1, token_QR=zeros(q, r), drawn_QR=zeros(q, r)
  )
  return slots, rows


def idle_load(
  questions: int, buffers: int, samples: int, width: int, none: int
) -> Load:
  """Returns, in NumPy, a load that fills nothing.

  Args:
    questions: X.
    buffers: Y.
    samples: I.
    width: T.
    none: Slots of a shard: the number of a slot that is not there.
  """
  x, y, i = questions, buffers, samples

  def zeros(*axes: int) -> Any:
    return np.zeros(axes, np.int32)

  return Load(
    tokens_XT=zeros(x, width),
    length_X=zeros(x),
    last_X=zeros(x),
    source_Y=zeros(y),
    slot_Y=zeros(y) + none,
    buffer_Y=zeros(y),
    key_YW=zeros(y, 2).astype(np.uint32),
    sample_YI=zeros(y, i),
    limit_YI=zeros(y, i),
    begun_Y=zeros(y),
    count_Y=zeros(y),
  )


def table_specs(layers: int) -> Table:
  """Returns how each array is split: slots and rows on data, K on tensor."""
  by_slot = PartitionSpec(ROWS)
  return Table(
    [LayerCache._make(SPECS)] * layers,
    Slots._make([by_slot] * len(Slots._fields)),
    Rows._make([by_slot] * len(Rows._fields)),
  )


def table_shardings(layers: int, mesh: Mesh) -> Table:
  """Returns each array's sharding, by `table_specs`."""
  return jax.tree.map(
    lambda spec: NamedSharding(mesh, spec), table_specs(layers)
  )


def put_table(table: Table, mesh: Mesh) -> Table:
  """Returns a table, of which a part may be on the host, on the devices.

  Whoever made its arrays, their shardings are spelled alike: another spelling
  of the same place would be compiled for again.
  """
  return jax.tree.map(put, table, table_shardings(len(table.caches), mesh))


def put(leaf: Any, place: NamedSharding) -> jax.Array:
  """Returns an array that is there already, by another spelling, or NumPy.

  Each process sends what its own devices need. (`device_put` compares arrays
  between processes, and copies those that it spells anew.)
  """
  if isinstance(leaf, jax.Array):
    parts = [shard.data for shard in leaf.addressable_shards]
    return jax.make_array_from_single_device_arrays(leaf.shape, place, parts)
  return jax.make_array_from_callback(
    leaf.shape, place, lambda index: np.asarray(leaf)[index]
  )


def pick(value_QE: jax.Array, buffer_QR: jax.Array) -> jax.Array:
  """Returns value_QR, of each row's buffer: (5, 7) at (1, 0) is (7, 5)."""
  return jnp.where(buffer_QR > 0, value_QE[:, 1:], value_QE[:, :1])
