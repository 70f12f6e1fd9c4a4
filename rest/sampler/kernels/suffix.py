"""The kernel over each row's suffix, which ends what the other two began."""

import jax
import triton
import triton.language as tl

from rest.model.launch import Struct, constexpr, launch, places, squash
from rest.sampler.kernels.options import Options, Shape, block_of, tile_for
from rest.sampler.kernels.softmax import MeanPart, load_queries, merge, read
from rest.sampler.table import LayerCache, Where


def attend_suffix(
  q_BKGH: jax.Array,
  newest: tuple[jax.Array, jax.Array],
  parts: list[MeanPart],
  cache: LayerCache,
  where: Where,
  options: Options,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Returns attention over all keys, and the suffix grown in place.

  Invariant: a program owns one row and one head: nobody else writes its suffix.
  Example: B = 24 rows and K = 2 make 48 programs, each with G = 3 queries in a
  tile of 16.

  Args:
    q_BKGH: Queries.
    newest: Their own keys and values.
    parts: What was found of the question, and of the prefix, if there is one.
    cache: The layer's.
    where: Where each row stands.
    options: Static.
  """
  b, k, g, h = q_BKGH.shape
  s, blocks = cache.v2_BKSH.shape[2], options.blocks
  question, prefix = parts[0], parts[-1]
  drawn_B = where.drawn_QR.reshape(-1)
  out_BKGH, k2_BKSH, v2_BKSH = launch(
    suffix_attention,
    (1, k, b),
    [drawn_B, q_BKGH, *newest, *question, *prefix],
    [Struct(q_BKGH.shape, q_BKGH.dtype)],
    [cache.k2, cache.v2_BKSH],
    warps=blocks.suffix_warps,
    stages=blocks.suffix_stages,
    options=options,
    shape=Shape(g, k, g, h, s),
    prefix_parts=len(prefix.sum_AKM) if len(parts) > 1 else 0,
    tile=tile_for(g),
    keys=block_of(s, blocks.suffix_keys),
  )
  return out_BKGH, k2_BKSH, v2_BKSH


@triton.jit
def suffix_attention(
  drawn_ptr,
  q_ptr,
  new_k_ptr,
  new_v_ptr,
  question_out_ptr,
  question_max_ptr,
  question_sum_ptr,
  prefix_out_ptr,
  prefix_max_ptr,
  prefix_sum_ptr,
  k_ptr,
  v_ptr,
  out_ptr,
  options: constexpr,
  shape: constexpr,
  prefix_parts: constexpr,
  tile: constexpr,
  keys: constexpr,
):
  """Begins with the newest key, runs over what is filled, and adds the parts.

  Invariant: of the suffix, keys before `drawn` are read and the one at `drawn`
  is written. Example: drawn 5, blocks of 4 keys: two blocks, of which the keys
  0 to 4 are read; the query's own key, number 5, comes from registers.
  """
  head, row, rows = tl.program_id(1), tl.program_id(2), tl.num_programs(2)
  q_ptr += row * shape.k * shape.g * shape.h
  q_MH, _, is_query_M = load_queries(q_ptr, tile, shape)
  drawn = tl.load(drawn_ptr + row)
  own, h = row * shape.k + head, tl.arange(0, shape.h)
  new_k_H = tl.load(new_k_ptr + own * shape.h + h)
  new_v_H = tl.load(new_v_ptr + own * shape.h + h)
  k_ptr += own.to(tl.int64) * shape.s * shape.h
  v_ptr += own.to(tl.int64) * shape.s * shape.h
  product_MH = q_MH.to(tl.float32) * new_k_H.to(tl.float32)[None, :]
  top_M = tl.sum(product_MH, 1)
  if options.cap > 0:
    top_M = squash(top_M, options.cap)
  total_M = tl.full((tile,), 1.0, tl.float32)
  out_MH = total_M[:, None] * new_v_H.to(tl.float32)[None, :]
  for block in range(tl.cdiv(drawn, keys)):
    start = block * keys
    key_S = start + tl.arange(0, keys)
    has_S = key_S < drawn  # The rest is not even read.
    at_SH = places(0, start, keys, shape.h, shape.h)
    k_SH = tl.load(k_ptr + at_SH, mask=has_S[:, None], other=0.0)
    v_SH = tl.load(v_ptr + at_SH, mask=has_S[:, None], other=0.0)
    seen_S = has_S
    if options.window > 0:
      seen_S = seen_S & (drawn - key_S < options.window)
    out_MH, top_M, total_M = read(
      out_MH, top_M, total_M, q_MH, k_SH.T, v_SH, seen_S[None, :], options
    )
  top_M *= options.unit
  # Parts lie as [A, K, B * G].
  part_M = (head * rows + row) * shape.g + tl.arange(0, tile)
  out_MH, top_M, total_M = merge(
    out_MH,
    top_M,
    total_M,
    question_out_ptr,
    question_max_ptr,
    question_sum_ptr,
    part_M,
    is_query_M,
  )
  for part in range(prefix_parts):
    out_MH, top_M, total_M = merge(
      out_MH,
      top_M,
      total_M,
      prefix_out_ptr,
      prefix_max_ptr,
      prefix_sum_ptr,
      part_M + part * shape.k * rows * shape.g,
      is_query_M,
    )
  at_MH = (own * shape.g + tl.arange(0, tile))[:, None] * shape.h + h[None, :]
  out_MH = (out_MH / total_M[:, None]).to(q_MH.dtype)
  tl.store(out_ptr + at_MH, out_MH, mask=is_query_M[:, None])
  tl.store(k_ptr + drawn * shape.h + h, new_k_H)
  tl.store(v_ptr + drawn * shape.h + h, new_v_H)
