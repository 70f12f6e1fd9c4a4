"""The kernel over the prefix: one sequence of keys, read by all rows."""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from rest.sampler.kernels import softmax
from rest.sampler.kernels.options import Options, block, block_of, tile_for
from rest.sampler.kernels.softmax import MeanPart, Ref, Running
from rest.sampler.table import LayerCache, Where, pick

_PARTS = 4  # Most that the keys are cut into: the third kernel reads them all.


def attend_prefix(
  q_BKGH: jax.Array, cache: LayerCache, where: Where, options: Options
) -> MeanPart:
  """Returns attention over the prefix, in A parts.

  Few rows make few tiles, which would leave the device idle: then the keys are
  shared out among programs, too. Invariant: each key of the prefix is in one
  part, and each query in one tile.

  Example: 8 rows of G = 6 make M = 48 queries, and with tiles of 16, K = 2 and
  a prefix of 64 in blocks of 16, 3 * 2 * 4 programs: A is 4, a block for each.
  """
  b, k, g, h = q_BKGH.shape
  m, s, blocks = b * g, cache.v0_KSH.shape[1], options.blocks
  keys = block_of(s, blocks.prefix_keys)
  tile = min(blocks.prefix_queries, tile_for(m))
  tiles = pl.cdiv(m, tile)
  parts = min(_PARTS, s // keys, pl.cdiv(blocks.prefix_programs, k * tiles))
  position_QR = pick(where.question_QE, where.buffer_QR) + where.drawn_QR
  position_B = where.prefix + position_QR.reshape(-1)
  spec = functools.partial(block, 'MKA')
  out_AKMH, max_AKM, sum_AKM = pl.pallas_call(
    functools.partial(
      _kernel, tile=tile, keys=keys, parts=parts, options=options
    ),
    grid=(tiles, k, parts),
    in_specs=[
      *(spec('.', 1), spec('.', b), spec('.K..', b, None, g, h)),
      *(spec('K..', None, h, s), spec('K..', None, s, h)),
    ],
    out_specs=[
      spec('AKM.', None, None, tile, h),
      *[spec('AKM', None, None, tile)] * 2,
    ],
    out_shape=softmax.part_shapes(q_BKGH.dtype, parts, k, m, h),
    compiler_params=plgpu.CompilerParams(
      num_warps=blocks.prefix_warps, num_stages=blocks.prefix_stages
    ),
    interpret=options.interpret,
    name='prefix_attention',
  )(where.prefix.reshape(1), position_B, q_BKGH, cache.k0_KHS, cache.v0_KSH)
  return MeanPart(out_AKMH, max_AKM, sum_AKM)


def _kernel(
  prefix_ref: Ref,
  position_ref: Ref,
  q_ref: Ref,
  k_ref: Ref,
  v_ref: Ref,
  out_ref: Ref,
  max_ref: Ref,
  sum_ref: Ref,
  *,
  tile: int,
  keys: int,
  parts: int,
  options: Options,
) -> None:
  """Runs over every A-th block of keys, for a tile of queries of one head.

  Invariant: parts take blocks by turns, so that each is read by one, and all
  have work however short the prefix is in its room. Example: 5 tokens, blocks
  of 2 keys, 2 parts: the first reads the blocks 0 and 2, of which key 5 is not
  seen, the second block 1.
  """
  q_MH, row_M, is_query_M = softmax.load_queries(q_ref, tile)
  position_M = plgpu.load(position_ref.at[row_M], mask=is_query_M, other=0)
  prefix, part = prefix_ref[0], pl.program_id(2)

  def read(i: jax.Array, state: Running) -> Running:
    start = (i * parts + part) * keys
    at, key_S = pl.ds(start, keys), start + jnp.arange(keys)
    seen_MS = (key_S < prefix)[None]
    if options.window:
      seen_MS &= (position_M[:, None] - key_S[None]) < options.window
    return softmax.grow(
      state, q_MH, k_ref[:, at], v_ref[at, :], seen_MS, options.cap
    )

  count = pl.cdiv(pl.cdiv(prefix, keys) - part, parts)
  state: Running = jax.lax.fori_loop(0, count, read, softmax.begin(*q_MH.shape))
  softmax.store(state, is_query_M, out_ref, max_ref, sum_ref)
