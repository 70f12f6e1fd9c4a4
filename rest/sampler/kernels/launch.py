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

from rest.sampler.kernels.body import (
  attend_prefix,
  attend_question,
  attend_suffix,
)
from rest.sampler.table import BUFFERS, LayerCache, pick

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
        attend_prefix,
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
      attend_question,
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
      attend_suffix,
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


def _part_shape(dtype, *axes):
  """Returns the outputs of a kernel that makes a `Part`."""
  one = jax.ShapeDtypeStruct(axes[:-1], jnp.float32)
  return [jax.ShapeDtypeStruct(axes, dtype), one, one]


def _tile(rows: int) -> int:
  return max(_TILE, pl.next_power_of_2(rows))


def _cut(capacity: int, most: int) -> int:
  """Returns the keys of a block: a power of two that divides the capacity."""
  return min(most, capacity & -capacity)
