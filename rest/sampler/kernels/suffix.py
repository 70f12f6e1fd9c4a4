"""The kernel over each row's suffix, which ends what the other two began."""

import jax
import triton
import triton.language as tl

from rest.model.launch import Struct, constexpr, launch, places, squash
from rest.sampler.kernels.options import Fixed, Options, block_of, tile_for
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
  found = tuple(parts[0]), tuple(parts[-1])
  count = len(parts[-1].sum_AKM) if len(parts) > 1 else 0
  keys = block_of(s, blocks.suffix_keys)
  out_BKGH, k2_BKSH, v2_BKSH = launch(
    suffix_attention,
    (1, k, b),
    [where.drawn_QR.reshape(-1), q_BKGH, newest, found],
    [Struct(q_BKGH.shape, q_BKGH.dtype)],
    Fixed(options, k, g, h, s, tile_for(g), keys, count),
    (blocks.suffix_warps, blocks.suffix_stages),
    [cache.k2, cache.v2_BKSH],
  )
  return out_BKGH, k2_BKSH, v2_BKSH


@triton.jit
def suffix_attention(
  drawn_ptr, q_ptr, newest, found, k_ptr, v_ptr, out_ptr, fixed: constexpr
):
  """Begins with the newest key, runs over what is filled, and adds the parts.

  Invariant: of the suffix, keys before `drawn` are read and the one at `drawn`
  is written. Example: drawn 5, blocks of 4 keys: two blocks, of which the keys
  0 to 4 are read; the query's own key, number 5, comes from registers.
  """
  head, row, rows = tl.program_id(1), tl.program_id(2), tl.num_programs(2)
  q_ptr += row * fixed.k * fixed.g * fixed.h
  q_MH, _, is_query_M = load_queries(q_ptr, fixed.g, fixed)
  drawn = tl.load(drawn_ptr + row)
  own, h = row * fixed.k + head, tl.arange(0, fixed.h)
  new_k_ptr, new_v_ptr = newest
  question, prefix = found
  new_k_H = tl.load(new_k_ptr + own * fixed.h + h)
  new_v_H = tl.load(new_v_ptr + own * fixed.h + h)
  k_ptr += own.to(tl.int64) * fixed.s * fixed.h
  v_ptr += own.to(tl.int64) * fixed.s * fixed.h
  product_MH = q_MH.to(tl.float32) * new_k_H.to(tl.float32)[None, :]
  top_M = tl.sum(product_MH, 1)
  if fixed.options.cap > 0:
    top_M = squash(top_M, fixed.options.cap)
  total_M = tl.full((fixed.tile,), 1.0, tl.float32)
  out_MH = total_M[:, None] * new_v_H.to(tl.float32)[None, :]
  for block in range(tl.cdiv(drawn, fixed.keys)):
    start = block * fixed.keys
    key_S = start + tl.arange(0, fixed.keys)
    has_S = key_S < drawn  # The rest is not even read.
    at_SH = places(0, start, fixed.keys, fixed.h, fixed.h)
    k_SH = tl.load(k_ptr + at_SH, mask=has_S[:, None], other=0.0)
    v_SH = tl.load(v_ptr + at_SH, mask=has_S[:, None], other=0.0)
    seen_S = has_S
    if fixed.options.window > 0:
      seen_S = seen_S & (drawn - key_S < fixed.options.window)
    out_MH, top_M, total_M = read(
      out_MH, top_M, total_M, q_MH, k_SH.T, v_SH, seen_S[None, :], fixed
    )
  top_M *= fixed.options.unit
  # Parts lie as [A, K, B * G].
  part_M = (head * rows + row) * fixed.g + tl.arange(0, fixed.tile)
  out_MH, top_M, total_M = merge(
    out_MH, top_M, total_M, question, part_M, is_query_M
  )
  for part in range(fixed.parts):
    at_M = part_M + part * fixed.k * rows * fixed.g
    out_MH, top_M, total_M = merge(
      out_MH, top_M, total_M, prefix, at_M, is_query_M
    )
  at_MH = places(0, own * fixed.g, fixed.tile, fixed.h, fixed.h)
  out_MH = (out_MH / total_M[:, None]).to(q_MH.dtype)
  tl.store(out_ptr + at_MH, out_MH, mask=is_query_M[:, None])
  tl.store(k_ptr + drawn * fixed.h + h, new_k_H)
  tl.store(v_ptr + drawn * fixed.h + h, new_v_H)
