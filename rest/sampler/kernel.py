"""Attention of a decoding step on NVIDIA GPUs, in three Pallas kernels.

The first runs over the prefix, for queries of all rows at once; the second over
the questions, for all rows of a slot; the third over each row's suffix, of
which it reads only what is filled, and begins with what the others found.
`attention.py` is the reference, and the path on other devices. Letters beside
those of `cache.py`:

  M queries of all rows that share a key head    N parts of the keys
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from rest.model import softcap
from rest.sampler.cache import BUFFERS, LayerCache, pick

_NEVER = -1e30
_TILE = 16  # Fewest queries that a matrix instruction takes.
_PARTS = 4  # Most that the prefix is cut into: the third kernel reads them all.


class Blocks(NamedTuple):
  """How the kernels are cut; chosen by measurement on an H200.

  Rows are queries of a program; the prefix is cut into parts until there are
  `prefix_programs` of them.
  """

  prefix_rows: int = 64
  prefix_keys: int = 64
  prefix_warps: int = 4
  prefix_stages: int = 3
  prefix_programs: int = 256
  question_rows: int = 64
  question_keys: int = 64
  question_warps: int = 4
  question_stages: int = 2
  own_keys: int = 32
  own_warps: int = 2
  own_stages: int = 3


class Part(NamedTuple):
  """Attention over some of the keys: means of values, and what they weigh.

  Means are rounded to the type of the values, as the result is; the largest
  logit and the sum of weights, relative to it, are float32.
  """

  out_NKMH: jax.Array
  max_NKM: jax.Array
  sum_NKM: jax.Array


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
  options = (window, cap, blocks, interpret)
  parts = [_questions(q_BKGH, cache, where, *options)]
  if cache.v0_KSH.shape[1]:
    parts.append(_prefix(q_BKGH, cache, where, *options))
  new = (k_BKH.astype(q_BKGH.dtype), v_BKH.astype(q_BKGH.dtype))
  return _own(q_BKGH, new, parts, cache, where, *options)


def _prefix(q_BKGH, cache, where, window, cap, blocks, interpret) -> Part:
  b, k, g, h = q_BKGH.shape
  m = b * g
  p = cache.v0_KSH.shape[1]
  keys = _cut(p, blocks.prefix_keys)
  tile = min(blocks.prefix_rows, _tile(m))
  tiles = pl.cdiv(m, tile)
  parts = min(_PARTS, p // keys, pl.cdiv(blocks.prefix_programs, k * tiles))
  position_QR = pick(where.question_QE, where.buffer_QR) + where.drawn_QR
  position_B = where.prefix + position_QR.reshape(-1)
  return Part._make(
    pl.pallas_call(
      functools.partial(
        _prefix_kernel,
        tile=tile,
        window=window,
        cap=cap,
        keys=keys,
        parts=parts,
      ),
      grid=(tiles, k, parts),
      in_specs=[
        pl.BlockSpec((1,), lambda i, j, n: (0,)),
        pl.BlockSpec((b,), lambda i, j, n: (0,)),
        pl.BlockSpec((b, None, g, h), lambda i, j, n: (0, j, 0, 0)),
        pl.BlockSpec((None, h, p), lambda i, j, n: (j, 0, 0)),
        pl.BlockSpec((None, p, h), lambda i, j, n: (j, 0, 0)),
      ],
      out_specs=[
        pl.BlockSpec((None, None, tile, h), lambda i, j, n: (n, j, i, 0)),
        pl.BlockSpec((None, None, tile), lambda i, j, n: (n, j, i)),
        pl.BlockSpec((None, None, tile), lambda i, j, n: (n, j, i)),
      ],
      out_shape=_part_shape(q_BKGH.dtype, parts, k, m, h),
      compiler_params=plgpu.CompilerParams(
        num_warps=blocks.prefix_warps, num_stages=blocks.prefix_stages
      ),
      interpret=interpret,
      name='prefix_attention',
    )(
      where.prefix.reshape(1),
      position_B,
      q_BKGH,
      cache.k0_KHS,
      cache.v0_KSH,
    )
  )


def _prefix_kernel(
  prefix_ref,
  position_ref,
  q_ref,
  k_ref,
  v_ref,
  out_ref,
  max_ref,
  sum_ref,
  *,
  tile,
  window,
  cap,
  keys,
  parts,
):
  q, row, is_row = _queries(q_ref, tile)
  position = plgpu.load(position_ref.at[row], mask=is_row, other=0)
  prefix, part = prefix_ref[0], pl.program_id(2)

  def block(i, state):
    start = (i * parts + part) * keys
    at, key = pl.ds(start, keys), start + jnp.arange(keys)
    seen = (key < prefix)[None]
    if window:
      seen &= (position[:, None] - key[None]) < window
    return _grow(state, q, k_ref[:, at], v_ref[at, :], seen, cap)

  # Parts take blocks by turns.
  count = pl.cdiv(pl.cdiv(prefix, keys) - part, parts)
  state = jax.lax.fori_loop(0, count, block, _begin(*q.shape))
  _store(state, is_row, out_ref, max_ref, sum_ref)


def _questions(q_BKGH, cache, where, window, cap, blocks, interpret) -> Part:
  b, k, g, h = q_BKGH.shape
  q, r = where.buffer_QR.shape
  rows, s = r * g, cache.v1_QEKSH.shape[3]
  tile = min(blocks.question_rows, _tile(rows))
  # A buffer that no row answers need not be read.
  is_used_QE = jnp.stack(
    [(where.buffer_QR == e).any(axis=1) for e in range(BUFFERS)], axis=1
  )

  def at_slot(*axes):
    return pl.BlockSpec(
      (None, BUFFERS, None, *axes), lambda i, j, n: (n, 0, j, 0, 0)
    )

  def at_rows(*axes):
    return pl.BlockSpec(
      (None, None, tile, *axes), lambda i, j, n: (j, n, i) + (0,) * len(axes)
    )

  part = pl.pallas_call(
    functools.partial(
      _question_kernel,
      tile=tile,
      window=window,
      cap=cap,
      keys=_cut(s, blocks.question_keys),
    ),
    grid=(pl.cdiv(rows, tile), k, q),
    in_specs=[
      pl.BlockSpec((None, BUFFERS), lambda i, j, n: (n, 0)),
      pl.BlockSpec((None, BUFFERS), lambda i, j, n: (n, 0)),
      pl.BlockSpec((None, r), lambda i, j, n: (n, 0)),
      pl.BlockSpec((None, r), lambda i, j, n: (n, 0)),
      pl.BlockSpec((r, None, g, h), lambda i, j, n: (n, j, 0, 0)),
      at_slot(h, s),
      at_slot(s, h),
    ],
    out_specs=[at_rows(h), at_rows(), at_rows()],
    out_shape=_part_shape(q_BKGH.dtype, k, q, rows, h),
    compiler_params=plgpu.CompilerParams(
      num_warps=blocks.question_warps, num_stages=blocks.question_stages
    ),
    interpret=interpret,
    name='question_attention',
  )(
    where.question_QE * is_used_QE,
    where.question_QE,
    where.buffer_QR,
    where.drawn_QR,
    q_BKGH,
    cache.k1_QEKHS,
    cache.v1_QEKSH,
  )
  return Part._make(x.reshape(1, k, b * g, *x.shape[3:]) for x in part)


def _question_kernel(
  length_ref,
  question_ref,
  buffer_ref,
  drawn_ref,
  q_ref,
  k_ref,
  v_ref,
  out_ref,
  max_ref,
  sum_ref,
  *,
  tile,
  window,
  cap,
  keys,
):
  q, row, is_row = _queries(q_ref, tile)
  buffer = plgpu.load(buffer_ref.at[row], mask=is_row, other=0)
  drawn = plgpu.load(drawn_ref.at[row], mask=is_row, other=0)
  mine = jnp.where(buffer > 0, question_ref[1], question_ref[0])
  state = _begin(*q.shape)
  for e in range(BUFFERS):

    def block(i, state, e=e):
      at, key = pl.ds(i * keys, keys), i * keys + jnp.arange(keys)
      seen = (key < length_ref[e])[None] & (buffer == e)[:, None]
      if window:
        seen &= ((mine + drawn)[:, None] - key[None]) < window
      return _grow(state, q, k_ref[e, :, at], v_ref[e, at, :], seen, cap)

    state = jax.lax.fori_loop(0, pl.cdiv(length_ref[e], keys), block, state)
  _store(state, is_row, out_ref, max_ref, sum_ref)


def _own(q_BKGH, new, parts, cache, where, window, cap, blocks, interpret):
  b, k, g, h = q_BKGH.shape
  s = cache.v2_BKSH.shape[2]

  def at_part(n, *axes):
    return pl.BlockSpec(
      (n, None, None, _tile(g), *axes),
      lambda i, j: (0, j, i, 0) + (0,) * len(axes),
    )

  def at_head(*axes):
    return pl.BlockSpec(
      (None, None, *axes), lambda i, j: (i, j) + (0,) * len(axes)
    )

  found, found_specs = [], []
  for part in parts:
    n = part.sum_NKM.shape[0]
    found += [x.reshape(n, k, b, g, *x.shape[3:]) for x in part]
    found_specs += [at_part(n, h), at_part(n), at_part(n)]
  last = 4 + len(found)
  return pl.pallas_call(
    functools.partial(
      _own_kernel,
      rows=g,
      window=window,
      cap=cap,
      keys=_cut(s, blocks.own_keys),
    ),
    grid=(b, k),
    in_specs=[
      pl.BlockSpec((1,), lambda i, j: (i,)),
      at_head(_tile(g), h),
      *(at_head(h), at_head(h)),
      *found_specs,
      *(at_head(s, h), at_head(s, h)),
    ],
    out_specs=[at_head(_tile(g), h), at_head(s, h), at_head(s, h)],
    out_shape=[
      jax.ShapeDtypeStruct((b, k, g, h), q_BKGH.dtype),
      jax.ShapeDtypeStruct(cache.k2.shape, cache.k2.dtype),
      jax.ShapeDtypeStruct(cache.v2_BKSH.shape, cache.v2_BKSH.dtype),
    ],
    input_output_aliases={last: 1, last + 1: 2},
    compiler_params=plgpu.CompilerParams(
      num_warps=blocks.own_warps, num_stages=blocks.own_stages
    ),
    interpret=interpret,
    name='suffix_attention',
  )(
    where.drawn_QR.reshape(-1),
    q_BKGH,
    *new,
    *found,
    cache.k2,
    cache.v2_BKSH,
  )


def _own_kernel(
  drawn_ref, q_ref, new_k_ref, new_v_ref, *refs, rows, window, cap, keys
):
  *found, k_ref, v_ref, out_ref, grown_k_ref, grown_v_ref = refs
  tile, width = q_ref.shape
  is_row = jnp.arange(tile) < rows
  mask = is_row[:, None]
  q = plgpu.load(q_ref.at[:, :], mask=mask, other=0.0)
  state = _begin(tile, width)
  for at in range(0, len(found), 3):
    parts_ref, max_ref, sum_ref = found[at : at + 3]
    for n in map(jnp.int32, range(parts_ref.shape[0])):
      part = (
        plgpu.load(parts_ref.at[n], mask=mask, other=0.0),
        plgpu.load(max_ref.at[n], mask=is_row, other=_NEVER),
        plgpu.load(sum_ref.at[n], mask=is_row, other=0.0),
      )
      state = _merge(state, part)
  drawn = drawn_ref[0]

  def block(i, state):
    at, key = pl.ds(i * keys, keys), i * keys + jnp.arange(keys)
    has = key < drawn  # The rest is not even read.
    k_SH = plgpu.load(k_ref.at[at, :], mask=has[:, None], other=0.0)
    v_SH = plgpu.load(v_ref.at[at, :], mask=has[:, None], other=0.0)
    seen = has & ((drawn - key) < window) if window else has
    return _grow(state, q, k_SH.T, v_SH, seen[None], cap)

  state = jax.lax.fori_loop(0, pl.cdiv(drawn, keys), block, state)
  # The newest key is not read back: it goes from registers into the sum.
  new_k, new_v = new_k_ref[:], new_v_ref[:]
  logit = (q.astype(jnp.float32) * new_k.astype(jnp.float32)[None]).sum(axis=1)
  one = jnp.ones_like(logit)
  part = (jnp.broadcast_to(new_v[None], q.shape), softcap(logit, cap), one)
  out, _, total = _merge(state, part)
  out = out / total[:, None]
  plgpu.store(out_ref.at[:, :], out.astype(out_ref.dtype), mask=mask)
  grown_k_ref[pl.ds(drawn, 1), :] = new_k[None]
  grown_v_ref[pl.ds(drawn, 1), :] = new_v[None]


def _queries(q_ref, tile):
  """Returns a program's queries, of which rows they are, and if they exist.

  Args:
    q_ref: [rows, G, H]; a program takes `tile` of its rows * G queries.
    tile: How many.
  """
  rows, groups, width = q_ref.shape
  query = pl.program_id(0) * tile + jnp.arange(tile)
  row, is_query = query // groups, query < rows * groups
  at = (row[:, None], (query % groups)[:, None], jnp.arange(width)[None])
  q = plgpu.load(q_ref.at[at], mask=is_query[:, None], other=0.0)
  return q, row, is_query


def _part_shape(dtype, *axes):
  """Returns the outputs of a kernel that makes a `Part`."""
  one = jax.ShapeDtypeStruct(axes[:-1], jnp.float32)
  return [jax.ShapeDtypeStruct(axes, dtype), one, one]


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


def _merge(state, part):
  """Adds what another softmax has come to."""
  out, top, total = state
  more, other, weight = part
  above = jnp.maximum(top, other)
  share, gain = jnp.exp(top - above), weight * jnp.exp(other - above)
  out = out * share[:, None] + more.astype(jnp.float32) * gain[:, None]
  return out, above, total * share + gain


def _store(state, is_row, out_ref, max_ref, sum_ref):
  out, top, total = state
  mask = is_row[:, None]
  mean = out / jnp.where(total > 0, total, 1.0)[:, None]  # There may be no key.
  plgpu.store(out_ref.at[:, :], mean.astype(out_ref.dtype), mask=mask)
  plgpu.store(max_ref.at[:], top, mask=is_row)
  plgpu.store(sum_ref.at[:], total, mask=is_row)


def _tile(rows: int) -> int:
  return max(_TILE, pl.next_power_of_2(rows))


def _cut(capacity: int, most: int) -> int:
  """Returns the keys of a block: a power of two that divides the capacity."""
  return min(most, capacity & -capacity)
