"""The program of a call: a bounded run of decoding steps."""

import functools
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from rest.config import Decoding
from rest.model import transformer
from rest.model.sharding import AXES, constrain
from rest.model.transformer import ModelConfig, Transformer, backbone
from rest.sampler.attention import three_levels
from rest.sampler.refill import claim, drop
from rest.sampler.table import (
  BUFFERS,
  Drawn,
  Dropped,
  Rows,
  Slots,
  Table,
  Where,
  pick,
)
from rest.sampler.token_choice import candidates_for, choose, uniforms

ENDS = 8  # Z: end tokens that a model may have.


@dataclass(frozen=True, slots=True)
class Program:
  """What a decoding program is compiled for, beside the table's shape.

  Attributes:
    steps: Tokens a row, at most, before the host looks.
    read: Entries of the suffix that attention reads.
    candidates: Best tokens looked at (`token_choice.candidates_for`).
    mesh: Of the devices.
  """

  steps: int
  read: int
  candidates: int
  mesh: Mesh


def program_for(
  decoding: Decoding, config: ModelConfig, steps: int, read: int, mesh: Mesh
) -> Program:
  """Returns what to compile for.

  Args:
    decoding: How tokens are chosen.
    config: The model's shape.
    steps: See `Program`; likewise the following.
    read: See `Program`.
    mesh: See `Program`.
  """
  # A temperature of 0 needs the best token only.
  top_k = decoding.top_k if decoding.temperature else decoding.top_k or 1
  return Program(steps, read, candidates_for(top_k, config.vocab), mesh)


class Knobs(NamedTuple):
  """What may change without compiling.

  Attributes:
    temperature: See `Decoding`; likewise the following.
    top_k: See `Decoding`.
    top_p: See `Decoding`.
    ends_Z: End tokens, padded with -1.
    prefix: Tokens of the prefix.
  """

  temperature: jax.Array
  top_k: jax.Array
  top_p: jax.Array
  ends_Z: jax.Array
  prefix: jax.Array


def decode(
  model: Transformer,
  table: Table,
  knobs: Knobs,
  dropped: Dropped,
  program: Program,
) -> tuple[Table, Drawn]:
  """Runs `program.steps` steps; rows that finish go on with the next sample.

  Args:
    model: Unstacked.
    table: Donated.
    knobs: See `Knobs`.
    dropped: What the host wants no more of.
    program: Static.
  """
  slots, rows = drop(table.slots, table.rows, dropped)
  table = table._replace(slots=slots, rows=rows)
  shape = (program.steps, *rows.entry_QR.shape)
  drawn = Drawn(
    token_TQR=jnp.zeros(shape, jnp.int32),
    logprob_TQR=jnp.zeros(shape, jnp.float32),
    entry_TQR=jnp.zeros(shape, jnp.int32),
    ended_TQR=jnp.zeros(shape, bool),
  )

  def body(step: jax.Array, state: tuple[Table, Drawn]) -> tuple[Table, Drawn]:
    table, drawn = state
    table, new = _step(model, table, knobs, program)
    return table, _note(drawn, new, step)

  return jax.lax.fori_loop(0, program.steps, body, (table, drawn))


def _note(drawn: Drawn, new: Drawn, step: jax.Array) -> Drawn:
  """Returns all that was drawn, with that of a step, which has no axis T."""

  def put(all_TQR: jax.Array, one_QR: jax.Array) -> jax.Array:
    return all_TQR.at[step].set(one_QR)

  return jax.tree.map(put, drawn, new)


def _step(
  model: Transformer, table: Table, knobs: Knobs, program: Program
) -> tuple[Table, Drawn]:
  """Draws one token for each row that is at work.

  Invariant: a row's token is at position prefix + question + drawn, where its
  key is written; a row that ends is idle in the next step, whose claim gives it
  the next sample. Example: with a prefix of 13, a question of 6 tokens and
  limit 2, a row reads the question's last token at position 18 and draws token
  0; reads it at 19, draws token 1, ends.

  Returns:
    The table, and what was drawn, without the axis T.
  """
  slots, rows = claim(table.slots, table.rows)
  buffer_QR = jnp.maximum(rows.entry_QR, 0) // slots.sample_QEI.shape[2]
  alive_QR = rows.entry_QR >= 0
  is_read_QE = jnp.stack(
    [(alive_QR & (buffer_QR == e)).any(axis=1) for e in range(BUFFERS)],
    axis=1,
  )
  question_QE = slots.length_QE * is_read_QE
  where = Where(knobs.prefix, question_QE, buffer_QR, rows.drawn_QR)
  position_QR = knobs.prefix + pick(slots.length_QE, buffer_QR) + rows.drawn_QR
  x_BTD, caches = backbone(
    model,
    rows.token_QR.reshape(-1, 1),
    position_QR.reshape(-1, 1),
    three_levels(model.config, where, program.read, program.mesh),
    table.caches,
  )
  logits_BV = constrain(transformer.logits(model, x_BTD)[:, 0], 'BV')
  token_QR, logprob_QR = _draw(
    logits_BV, slots, rows, buffer_QR, knobs, program
  )
  drawn_QR = rows.drawn_QR + alive_QR
  is_end_QR = (token_QR[..., None] == knobs.ends_Z[None, None]).any(axis=-1)
  limit_QR = _of_entry(slots.limit_QEI, rows.entry_QR)
  ended_QR = alive_QR & (is_end_QR | (drawn_QR >= limit_QR))
  new = Drawn(token_QR, logprob_QR, rows.entry_QR, ended_QR)
  rows = Rows(jnp.where(ended_QR, -1, rows.entry_QR), token_QR, drawn_QR)
  return Table(caches, slots, rows), new


def _draw(
  logits_BV: jax.Array,
  slots: Slots,
  rows: Rows,
  buffer_QR: jax.Array,
  knobs: Knobs,
  program: Program,
) -> tuple[jax.Array, jax.Array]:
  """Returns tokens and their log-probabilities, token_QR and logprob_QR.

  Invariant: each device has whole rows of logits; rows are shared out over all
  devices, those of `tensor` too. Example: 16 rows on data 2 and tensor 2, where
  a device computed half of the vocabulary for 8 rows: it chooses for 4.

  Args:
    logits_BV: Split as they are computed. Left to itself, the compiler brought
      all of the head's weights to each device in each step, and not these.
    slots: Of the table, as are the rows.
    rows: Which sample each works on.
    buffer_QR: In which buffer of its slot.
    knobs: How to choose.
    program: Of how many tokens.
  """
  sample_QR = _of_entry(slots.sample_QEI, rows.entry_QR)
  key_QRW = jnp.where(
    buffer_QR[..., None] > 0, slots.key_QEW[:, 1:], slots.key_QEW[:, :1]
  )
  drawn_QR = rows.drawn_QR + pick(slots.begun_QE, buffer_QR)
  by_row, whole = PartitionSpec(AXES), PartitionSpec()
  token_B, logprob_B = jax.shard_map(
    functools.partial(_choose, program.candidates),
    mesh=program.mesh,
    in_specs=(*[by_row] * 4, *[whole] * 3),
    out_specs=(by_row, by_row),
    check_vma=False,
  )(
    logits_BV,
    key_QRW.reshape(-1, 2),
    sample_QR.reshape(-1),
    drawn_QR.reshape(-1),
    knobs.temperature,
    knobs.top_k,
    knobs.top_p,
  )
  return token_B.reshape(buffer_QR.shape), logprob_B.reshape(buffer_QR.shape)


def _choose(
  candidates: int,
  logits_BV: jax.Array,
  key_BW: jax.Array,
  sample_B: jax.Array,
  drawn_B: jax.Array,
  temperature: jax.Array,
  top_k: jax.Array,
  top_p: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """Chooses for the rows of one device."""
  uniform_B = uniforms(key_BW, sample_B, drawn_B)
  return choose(logits_BV, uniform_B, temperature, top_k, top_p, candidates)


def _of_entry(value_QEI: jax.Array, entry_QR: jax.Array) -> jax.Array:
  """Returns value_QR, of each row's sample; of idle rows, any."""
  by_entry = value_QEI.reshape(value_QEI.shape[0], -1)
  return jnp.take_along_axis(by_entry, jnp.maximum(entry_QR, 0), axis=1)
