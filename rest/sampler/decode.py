"""The compiled programs of the sampler: prefill and a bounded run of steps."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from rest.model import transformer
from rest.model.attention import attention
from rest.model.sharding import AXES
from rest.model.transformer import Transformer, backbone
from rest.sampler.attention import Where, three_levels
from rest.sampler.table import (
  Dropped,
  Load,
  Rows,
  Table,
  claim,
  drop,
  fill,
  pick,
)
from rest.sampler.token_choice import choose, uniforms


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


class Knobs(NamedTuple):
  """What may change without compiling."""

  temperature: jax.Array
  top_k: jax.Array
  top_p: jax.Array
  ends_X: jax.Array  # End tokens, padded with -1.
  prefix: jax.Array  # Tokens of the prefix.


class Drawn(NamedTuple):
  """What a call drew, step by step; entry_TQR is -1 where a row was idle."""

  token_TQR: jax.Array
  logprob_TQR: jax.Array
  entry_TQR: jax.Array
  ended_TQR: jax.Array


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
  return decoding(program.mesh.devices.flat[0].platform)(
    model, table, knobs, dropped, program
  )


@functools.cache
def decoding(platform: str) -> Callable[..., tuple[Table, Drawn]]:
  """Returns `decode` as compiled for a platform."""
  options = {}
  if platform == 'gpu':
    # Of Triton's matrix products few are quicker here than the library's, and
    # trying them takes half of the compilation (bench/NOTES.md).
    options['xla_gpu_enable_triton_gemm'] = False
  return jax.jit(
    _decode,
    static_argnames='program',
    donate_argnames='table',
    compiler_options=options,
  )


def _decode(model, table, knobs, dropped, program):
  slots, rows = drop(table.slots, table.rows, dropped)
  table = table._replace(slots=slots, rows=rows)
  shape = (program.steps, *rows.entry_QR.shape)
  drawn = Drawn(
    jnp.zeros(shape, jnp.int32),
    jnp.zeros(shape, jnp.float32),
    jnp.zeros(shape, jnp.int32),
    jnp.zeros(shape, bool),
  )

  def body(step, state):
    table, drawn = state
    table, new = _step(model, table, knobs, program)
    drawn = jax.tree.map(lambda all, one: all.at[step].set(one), drawn, new)
    return table, drawn

  return jax.lax.fori_loop(0, program.steps, body, (table, drawn))


def _step(model, table, knobs, program):
  slots, rows = claim(table.slots, table.rows)
  places = slots.sample_QEI.shape[2]
  buffer_QR = jnp.maximum(rows.entry_QR, 0) // places
  where = Where(knobs.prefix, slots.length_QE, buffer_QR, rows.drawn_QR)
  position_QR = knobs.prefix + pick(slots.length_QE, buffer_QR) + rows.drawn_QR
  x_BTD, caches = backbone(
    model,
    rows.token_QR.reshape(-1, 1),
    position_QR.reshape(-1, 1),
    three_levels(model.config, where, program.read, program.mesh),
    table.caches,
  )
  logits_BV = transformer.logits(model, x_BTD)[:, 0]
  sample_QR = _of_entry(slots.sample_QEI, rows.entry_QR)
  token_QR, logprob_QR = _draw(
    logits_BV, slots, buffer_QR, sample_QR, rows.drawn_QR, knobs, program
  )
  alive_QR = rows.entry_QR >= 0
  count_QR = rows.drawn_QR + alive_QR
  is_end_QR = (token_QR[..., None] == knobs.ends_X[None, None]).any(axis=-1)
  limit_QR = _of_entry(slots.limit_QEI, rows.entry_QR)
  ended_QR = alive_QR & (is_end_QR | (count_QR >= limit_QR))
  new = Drawn(token_QR, logprob_QR, rows.entry_QR, ended_QR)
  rows = Rows(jnp.where(ended_QR, -1, rows.entry_QR), token_QR, count_QR)
  return Table(caches, slots, rows), new


def _draw(logits_BV, slots, buffer_QR, sample_QR, drawn_QR, knobs, program):
  """Chooses with rows over all devices: each needs whole rows of logits."""
  key_QRW = jnp.where(
    buffer_QR[..., None] > 0, slots.key_QEW[:, 1:], slots.key_QEW[:, :1]
  )
  rows = P(AXES)

  def local(logits_BV, key_BW, sample_B, drawn_B, temperature, top_k, top_p):
    uniform_B = uniforms(key_BW, sample_B, drawn_B)
    return choose(
      logits_BV, uniform_B, temperature, top_k, top_p, program.candidates
    )

  token_B, logprob_B = jax.shard_map(
    local,
    mesh=program.mesh,
    in_specs=(rows, rows, rows, rows, P(), P(), P()),
    out_specs=(rows, rows),
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


def _of_entry(value_QEI, entry_QR):
  flat_QM = value_QEI.reshape(value_QEI.shape[0], -1)
  return jnp.take_along_axis(flat_QM, jnp.maximum(entry_QR, 0), axis=1)


@functools.partial(jax.jit, donate_argnames='table')
def load_prefix(
  model: Transformer, table: Table, tokens_XT: jax.Array, length: jax.Array
) -> Table:
  """Returns the table with the prefix at level 0.

  Args:
    model: Unstacked.
    table: Donated.
    tokens_XT: The same prefix for each data-parallel device.
    length: Tokens of it.
  """
  length_X = jnp.broadcast_to(length, tokens_XT.shape[:1])
  levels = _prefill(model, tokens_XT, length_X, None, jnp.int32(0))
  caches = [
    cache._replace(
      k0_KHS=k_XKHT[0].astype(cache.k0_KHS.dtype),
      v0_KSH=v_XKTH[0].astype(cache.v0_KSH.dtype),
    )
    for cache, (k_XKHT, v_XKTH) in zip(table.caches, levels, strict=True)
  ]
  return table._replace(caches=caches)


@functools.partial(jax.jit, donate_argnames='table')
def load_questions(
  model: Transformer, table: Table, load: Load, prefix: jax.Array
) -> Table:
  """Returns the table with the load's questions at level 1."""
  levels = _prefill(model, load.tokens_XT, load.length_X, table.caches, prefix)
  return fill(table, load, levels)


def _prefill(model, tokens_XT, length_X, caches, prefix):
  """Returns keys and values by layer of prompts behind the prefix."""
  config = model.config
  batch, width = tokens_XT.shape
  own_XT = jnp.broadcast_to(jnp.arange(width)[None], (batch, width))
  position_XT = prefix + own_XT
  has_XT = own_XT < length_X[:, None]

  def attend(q_XTKGH, k_XTKH, v_XTKH, window, cache):
    k_XSKH, v_XSKH = k_XTKH, v_XTKH
    position_XS, has_XS = position_XT, has_XT
    if cache is not None and cache.v0_KSH.shape[1]:
      k0_SKH = jnp.moveaxis(cache.k0_KHS, 2, 0)
      v0_SKH = jnp.swapaxes(cache.v0_KSH, 0, 1)
      k_XSKH = jnp.concatenate([_all(k0_SKH, batch), k_XTKH], axis=1)
      v_XSKH = jnp.concatenate([_all(v0_SKH, batch), v_XTKH], axis=1)
      first_S = jnp.arange(v0_SKH.shape[0])[None]
      first_XS = jnp.broadcast_to(first_S, (batch, first_S.shape[1]))
      position_XS = jnp.concatenate([first_XS, position_XT], axis=1)
      has_XS = jnp.concatenate([first_XS < prefix, has_XT], axis=1)
    ahead_XTS = position_XT[:, :, None] - position_XS[:, None]
    seen_XTS = has_XS[:, None] & (ahead_XTS >= 0)
    if window:
      seen_XTS &= ahead_XTS < window
    out_XTKGH = attention(config, q_XTKGH, k_XSKH, v_XSKH, seen_XTS)
    k_XKHT, v_XKTH = jnp.moveaxis(k_XTKH, 1, 3), jnp.swapaxes(v_XTKH, 1, 2)
    return out_XTKGH, (k_XKHT, v_XKTH)

  _, levels = backbone(model, tokens_XT, position_XT, attend, caches)
  return levels


def _all(x_SKH, batch):
  return jnp.broadcast_to(x_SKH[None], (batch, *x_SKH.shape))
