"""Attention of a decoding step on NVIDIA GPUs, in two Pallas kernels.

The first runs over the prefix and the questions, all rows of a slot at once;
the second over each row's suffix, of which it reads only what is filled, and
begins with what the first one found. `attention.py` is the reference, and the
path on other devices.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from rest.model import softcap
from rest.sampler.cache import LayerCache

_NEVER = -1e30
_TILE = 16  # Fewest queries that a matrix instruction takes.


class Blocks(NamedTuple):
  """How the kernels are cut; chosen by measurement on an H200."""

  shared_keys: int = 64
  shared_warps: int = 4
  shared_stages: int = 2
  own_keys: int = 32
  own_warps: int = 2
  own_stages: int = 3


_BLOCKS = Blocks()


def attend(
  q_BKGH: jax.Array,
  k_BKH: jax.Array,
  v_BKH: jax.Array,
  cache: LayerCache,
  where: Any,
  window: int,
  cap: float,
  blocks: Blocks = _BLOCKS,
  interpret: bool = False,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Returns attention of one query a row, and the suffix grown by its key.

  Args:
    q_BKGH: Scaled queries.
    k_BKH: Keys of the tokens that ask.
    v_BKH: Their values.
    cache: The layer's, with k2 as BKSH; its suffix is overwritten in place.
    where: `attention.Where`.
    window: How far back attention reaches; 0 is everything.
    cap: Soft-cap of the logits; 0 is off.
    blocks: How the kernels are cut.
    interpret: Runs without a GPU, for tests.

  Returns:
    out_BKGH, k2_BKSH and v2_BKSH.
  """
  q, r = where.buffer_QR.shape
  q_QKRGH = jnp.moveaxis(q_BKGH.reshape(q, r, *q_BKGH.shape[1:]), 1, 2)
  shared = _shared(q_QKRGH, cache, where, window, cap, blocks, interpret)
  new = (k_BKH.astype(q_BKGH.dtype), v_BKH.astype(q_BKGH.dtype))
  return _own(
    q_QKRGH, new, shared, cache, where, window, cap, blocks, interpret
  )


def _shared(q_QKRGH, cache, where, window, cap, blocks, interpret):
  q, k, r, g, h = q_QKRGH.shape
  rows = r * g
  tile = _tile(rows)
  buffer_QM = jnp.repeat(where.buffer_QR, g, axis=1)
  offset_QM = jnp.repeat(where.drawn_QR, g, axis=1)
  # A buffer that no row answers need not be read.
  is_used_QE = jnp.stack(
    [(where.buffer_QR == e).any(axis=1) for e in range(2)], axis=1
  )
  length_QE = where.question_QE * is_used_QE
  k0_KHS, v0_KSH = cache.k0_KHS, cache.v0_KSH
  if not v0_KSH.shape[1]:  # A kernel takes no empty array; this is not read.
    k0_KHS, v0_KSH = (
      jnp.zeros((k, h, 1), q_QKRGH.dtype),
      jnp.zeros((k, 1, h), q_QKRGH.dtype),
    )
  p, s = v0_KSH.shape[1], cache.v1_QEKSH.shape[3]

  def whole(*axes):
    return jax.ShapeDtypeStruct(axes, jnp.float32)

  def at_row(*axes):
    return pl.BlockSpec(
      (None, None, tile, *axes), lambda i, j: (i, j, 0) + (0,) * len(axes)
    )

  out, top, total = pl.pallas_call(
    functools.partial(
      _shared_kernel,
      rows=rows,
      window=window,
      cap=cap,
      prefix_keys=_cut(p, blocks.shared_keys),
      keys=_cut(s, blocks.shared_keys),
    ),
    grid=(q, k),
    in_specs=[
      pl.BlockSpec((1,), lambda i, j: (0,)),
      pl.BlockSpec((None, 2), lambda i, j: (i, 0)),
      pl.BlockSpec((None, 2), lambda i, j: (i, 0)),
      pl.BlockSpec((None, tile), lambda i, j: (i, 0)),
      pl.BlockSpec((None, tile), lambda i, j: (i, 0)),
      at_row(h),
      pl.BlockSpec((None, h, p), lambda i, j: (j, 0, 0)),
      pl.BlockSpec((None, p, h), lambda i, j: (j, 0, 0)),
      pl.BlockSpec((None, 2, None, h, s), lambda i, j: (i, 0, j, 0, 0)),
      pl.BlockSpec((None, 2, None, s, h), lambda i, j: (i, 0, j, 0, 0)),
    ],
    out_specs=[at_row(h), at_row(), at_row()],
    out_shape=[whole(q, k, rows, h), whole(q, k, rows), whole(q, k, rows)],
    compiler_params=plgpu.CompilerParams(
      num_warps=blocks.shared_warps, num_stages=blocks.shared_stages
    ),
    interpret=interpret,
    name='shared_attention',
  )(
    where.prefix.reshape(1),
    length_QE,
    where.question_QE,
    buffer_QM,
    offset_QM,
    q_QKRGH.reshape(q, k, rows, h),
    k0_KHS,
    v0_KSH,
    cache.k1_QEKHS,
    cache.v1_QEKSH,
  )
  return (
    out.reshape(q, k, r, g, h),
    top.reshape(q, k, r, g),
    total.reshape(q, k, r, g),
  )


def _shared_kernel(
  prefix_ref,
  length_ref,
  question_ref,
  buffer_ref,
  offset_ref,
  q_ref,
  k0_ref,
  v0_ref,
  k1_ref,
  v1_ref,
  out_ref,
  max_ref,
  sum_ref,
  *,
  rows,
  window,
  cap,
  prefix_keys,
  keys,
):
  tile, width = q_ref.shape
  is_row = jnp.arange(tile) < rows
  q = plgpu.load(q_ref.at[:, :], mask=is_row[:, None], other=0.0)
  buffer = plgpu.load(buffer_ref.at[:], mask=is_row, other=0)
  offset = plgpu.load(offset_ref.at[:], mask=is_row, other=0)
  prefix = prefix_ref[0]
  mine = jnp.where(buffer > 0, question_ref[1], question_ref[0])
  position = prefix + mine + offset
  state = _begin(tile, width)

  def prefix_block(i, state):
    at = pl.ds(i * prefix_keys, prefix_keys)
    key = i * prefix_keys + jnp.arange(prefix_keys)
    seen = (key < prefix)[None]
    if window:
      seen &= (position[:, None] - key[None]) < window
    return _grow(state, q, k0_ref[:, at], v0_ref[at, :], seen, cap)

  state = jax.lax.fori_loop(
    0, pl.cdiv(prefix, prefix_keys), prefix_block, state
  )
  for e in range(2):

    def question_block(i, state, e=e):
      at = pl.ds(i * keys, keys)
      key = i * keys + jnp.arange(keys)
      seen = (key < length_ref[e])[None] & (buffer == e)[:, None]
      if window:
        seen &= (position[:, None] - prefix - key[None]) < window
      return _grow(state, q, k1_ref[e, :, at], v1_ref[e, at, :], seen, cap)

    state = jax.lax.fori_loop(
      0, pl.cdiv(length_ref[e], keys), question_block, state
    )
  out, top, total = state
  plgpu.store(out_ref.at[:, :], out, mask=is_row[:, None])
  plgpu.store(max_ref.at[:], top, mask=is_row)
  plgpu.store(sum_ref.at[:], total, mask=is_row)


def _own(q_QKRGH, new, shared, cache, where, window, cap, blocks, interpret):
  q, k, r, g, h = q_QKRGH.shape
  s = cache.v2_BKSH.shape[2]

  def at_row(*axes):
    return pl.BlockSpec(
      (None, None, None, _tile(g), *axes),
      lambda i, j: (i // r, j, i % r, 0) + (0,) * len(axes),
    )

  def at_head(*axes):
    return pl.BlockSpec(
      (None, None, *axes), lambda i, j: (i, j) + (0,) * len(axes)
    )

  return pl.pallas_call(
    functools.partial(
      _own_kernel,
      rows=g,
      window=window,
      cap=cap,
      keys=_cut(s, blocks.own_keys),
    ),
    grid=(q * r, k),
    in_specs=[
      pl.BlockSpec((1,), lambda i, j: (i,)),
      at_row(h),
      at_row(h),
      at_row(),
      at_row(),
      at_head(h),
      at_head(h),
      at_head(s, h),
      at_head(s, h),
    ],
    out_specs=[at_head(_tile(g), h), at_head(s, h), at_head(s, h)],
    out_shape=[
      jax.ShapeDtypeStruct((q * r, k, g, h), q_QKRGH.dtype),
      jax.ShapeDtypeStruct(cache.k2.shape, cache.k2.dtype),
      jax.ShapeDtypeStruct(cache.v2_BKSH.shape, cache.v2_BKSH.dtype),
    ],
    input_output_aliases={7: 1, 8: 2},
    compiler_params=plgpu.CompilerParams(
      num_warps=blocks.own_warps, num_stages=blocks.own_stages
    ),
    interpret=interpret,
    name='suffix_attention',
  )(
    where.drawn_QR.reshape(-1),
    q_QKRGH,
    *shared,
    *new,
    cache.k2,
    cache.v2_BKSH,
  )


def _own_kernel(
  drawn_ref,
  q_ref,
  out0_ref,
  max0_ref,
  sum0_ref,
  new_k_ref,
  new_v_ref,
  k_ref,
  v_ref,
  out_ref,
  grown_k_ref,
  grown_v_ref,
  *,
  rows,
  window,
  cap,
  keys,
):
  is_row = jnp.arange(q_ref.shape[0]) < rows
  mask = is_row[:, None]
  q = plgpu.load(q_ref.at[:, :], mask=mask, other=0.0)
  state = (
    plgpu.load(out0_ref.at[:, :], mask=mask, other=0.0),
    plgpu.load(max0_ref.at[:], mask=is_row, other=_NEVER),
    plgpu.load(sum0_ref.at[:], mask=is_row, other=0.0),
  )
  drawn = drawn_ref[0]

  def block(i, state):
    at = pl.ds(i * keys, keys)
    key = i * keys + jnp.arange(keys)
    seen = (key < drawn)[None]
    if window:
      seen &= ((drawn - key) < window)[None]
    return _grow(state, q, k_ref[at, :].T, v_ref[at, :], seen, cap)

  state = jax.lax.fori_loop(0, pl.cdiv(drawn, keys), block, state)
  # The newest key is not read back: it goes from registers into the sum.
  new_k, new_v = new_k_ref[:], new_v_ref[:]
  out, top, total = state
  logit = (q.astype(jnp.float32) * new_k.astype(jnp.float32)[None]).sum(axis=1)
  logit = softcap(logit, cap)
  above = jnp.maximum(top, logit)
  weight, share = jnp.exp(logit - above), jnp.exp(top - above)
  out = out * share[:, None] + weight[:, None] * new_v.astype(jnp.float32)[None]
  out = out / (total * share + weight)[:, None]
  plgpu.store(out_ref.at[:, :], out.astype(out_ref.dtype), mask=mask)
  grown_k_ref[pl.ds(drawn, 1), :] = new_k[None]
  grown_v_ref[pl.ds(drawn, 1), :] = new_v[None]


def _begin(tile, width):
  return (
    jnp.zeros((tile, width), jnp.float32),
    jnp.full((tile,), _NEVER, jnp.float32),
    jnp.zeros((tile,), jnp.float32),
  )


def _grow(state, q, k_HS, v_SH, seen, cap):
  """Adds a block of keys to a running softmax."""
  out, top, total = state
  logits = softcap(jnp.dot(q, k_HS, preferred_element_type=jnp.float32), cap)
  logits = jnp.where(seen, logits, _NEVER)
  above = jnp.maximum(top, logits.max(axis=1))
  weights = jnp.exp(logits - above[:, None])
  share = jnp.exp(top - above)
  out = out * share[:, None] + jnp.dot(
    weights.astype(v_SH.dtype), v_SH, preferred_element_type=jnp.float32
  )
  return out, above, total * share + weights.sum(axis=1)


def _tile(rows: int) -> int:
  return max(_TILE, pl.next_power_of_2(rows))


def _cut(capacity: int, most: int) -> int:
  """Returns the keys of a block: a power of two that divides the capacity."""
  return min(most, capacity & -capacity)
