"""The kernel over the prefix: one sequence of keys, read by all rows."""

import jax
import triton
import triton.language as tl

from rest.model.launch import begin, constexpr, launch, places
from rest.sampler.kernels.options import Fixed, Options, block_of, tile_for
from rest.sampler.kernels.softmax import (
  MeanPart,
  load_queries,
  part_structs,
  read,
  store,
)
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
  tiles = -(-m // tile)
  wanted = -(-blocks.prefix_programs // (k * tiles))
  parts = min(_PARTS, s // keys, wanted)
  position_QR = pick(where.question_QE, where.buffer_QR) + where.drawn_QR
  position_B = where.prefix + position_QR.reshape(-1)
  one = where.prefix.reshape(1)
  part = launch(
    prefix_attention,
    (tiles, k, parts),
    [(one, position_B), m, q_BKGH, cache.k0_KHS, cache.v0_KSH],
    part_structs(q_BKGH.dtype, parts, k, m, h),
    Fixed(options, k, g, h, s, tile, keys),
    (blocks.prefix_warps, blocks.prefix_stages),
  )
  return MeanPart(*part)


@triton.jit
def prefix_attention(
  where,
  queries,
  q_ptr,
  k_ptr,
  v_ptr,
  out_ptr,
  max_ptr,
  sum_ptr,
  fixed: constexpr,
):
  """Runs over every A-th block of keys, for a tile of queries of one head.

  Invariant: parts take blocks by turns, so that each is read by one, and all
  have work however short the prefix is in its room. Example: 5 tokens, blocks
  of 2 keys, 2 parts: the first reads the blocks 0 and 2, of which key 5 is not
  seen, the second block 1.
  """
  head, part, parts = tl.program_id(1), tl.program_id(2), tl.num_programs(2)
  prefix_ptr, position_ptr = where
  q_MH, row_M, is_query_M = load_queries(q_ptr, queries, fixed)
  position_M = tl.load(position_ptr + row_M, mask=is_query_M, other=0)
  prefix = tl.load(prefix_ptr)
  k_ptr += head * fixed.h * fixed.s
  v_ptr += head * fixed.h * fixed.s
  out_MH, top_M, total_M = begin(fixed.tile, fixed.h)
  for block in range(part, tl.cdiv(prefix, fixed.keys), parts):
    start = block * fixed.keys
    key_S = start + tl.arange(0, fixed.keys)
    seen_MS = (key_S < prefix)[None, :]
    if fixed.options.window > 0:
      ahead_MS = position_M[:, None] - key_S[None, :]
      seen_MS = seen_MS & (ahead_MS < fixed.options.window)
    k_HS = tl.load(places(k_ptr + start, 0, fixed.h, fixed.s, fixed.keys))
    v_SH = tl.load(places(v_ptr, start, fixed.keys, fixed.h, fixed.h))
    out_MH, top_M, total_M = read(
      out_MH, top_M, total_M, q_MH, k_HS, v_SH, seen_MS, fixed
    )
  at, state = part * fixed.k + head, (out_MH, top_M, total_M)
  store(state, at, queries, out_ptr, max_ptr, sum_ptr, fixed)
