"""The kernel over the questions: two of a slot, read by the slot's rows."""

import jax
import triton
import triton.language as tl

from rest.model.launch import begin, constexpr, launch, places
from rest.sampler.kernels.options import (
  Fixed,
  Options,
  block_of,
  stretch_of,
  tile_for,
)
from rest.sampler.kernels.softmax import (
  MeanPart,
  load_queries,
  part_structs,
  read,
  store,
)
from rest.sampler.table import BUFFERS, LayerCache, Where

_BUFFERS = tl.constexpr(BUFFERS)


def attend_questions(
  q_BKGH: jax.Array, cache: LayerCache, where: Where, options: Options
) -> tuple[MeanPart, int]:
  """Returns attention of each row over its own question, and keys of a part.

  Invariant: a program has queries of one slot and one head only, so that the
  keys of a slot's questions are read once a tile. Example: Q = 3 slots of R = 8
  rows, G = 6, K = 2: tiles of 64 hold a slot's 48 queries, and there are
  1 * 2 * 3 programs. What comes out by slot, [A, K, Q, R * G], lies as all rows
  do, [A, K, B * G]. Long questions are read in stretches, each a part; of those
  that no question of the slot reaches, nothing is written.
  """
  b, k, g, h = q_BKGH.shape
  q, r = where.buffer_QR.shape
  m, s, blocks = r * g, cache.v1_QEKSH.shape[3], options.blocks
  tile = min(blocks.question_queries, tile_for(m))
  tiles, keys = -(-m // tile), block_of(s, blocks.question_keys)
  stretch = stretch_of(s, tiles * k * q, keys, blocks)
  parts = -(-s // stretch)
  part = launch(
    question_attention,
    (tiles, k, parts * q),
    [
      (where.question_QE, where.buffer_QR, where.drawn_QR),
      (m, q),
      *(q_BKGH, cache.k1_QEKHS, cache.v1_QEKSH),
    ],
    part_structs(q_BKGH.dtype, parts, k, q, m, h),
    Fixed(options, k, g, h, s, tile, keys, stretch),
    (blocks.question_warps, blocks.question_stages),
  )
  by_row = (x.reshape(parts, k, b * g, *x.shape[4:]) for x in part)
  return MeanPart._make(by_row), stretch


@triton.jit
def question_attention(
  slots,
  counts,
  q_ptr,
  k_ptr,
  v_ptr,
  out_ptr,
  max_ptr,
  sum_ptr,
  fixed: constexpr,
):
  """Runs over a stretch of both questions of a slot.

  Invariant: a query sees the keys of its own question, in order. Example:
  questions of 3 and 9 tokens, blocks of 4 keys, stretches of 8: the program of
  the first stretch reads block 0 of both questions and block 1 of the second,
  that of the second its block 2, and stores a part without keys for those who
  answer the first, who do not look at it.
  """
  queries, count = counts
  head, slot = tl.program_id(1), tl.program_id(2) % count
  part = tl.program_id(2) // count
  question_ptr, buffer_ptr, drawn_ptr = slots
  first = slot * _BUFFERS
  longest = tl.load(question_ptr + first)
  for e in range(1, _BUFFERS):
    longest = tl.maximum(longest, tl.load(question_ptr + first + e))
  if part * fixed.stretch >= longest:
    return
  q_ptr += slot * queries * fixed.k * fixed.h
  q_MH, row_M, is_query_M = load_queries(q_ptr, queries, fixed)
  row_M += slot * (queries // fixed.g)
  buffer_M = tl.load(buffer_ptr + row_M, mask=is_query_M, other=0)
  drawn_M = tl.load(drawn_ptr + row_M, mask=is_query_M, other=0)
  own_M = tl.load(question_ptr + first + buffer_M)
  out_MH, top_M, total_M = begin(fixed.tile, fixed.h)
  for e in range(_BUFFERS):
    level = (first + e).to(tl.int64) * fixed.k + head
    k_level_ptr = k_ptr + level * fixed.h * fixed.s
    v_level_ptr = v_ptr + level * fixed.h * fixed.s
    asked = tl.load(question_ptr + first + e)
    stop = tl.minimum(asked, (part + 1) * fixed.stretch)
    first_block = part * (fixed.stretch // fixed.keys)
    for block in range(first_block, tl.cdiv(stop, fixed.keys)):
      start = block * fixed.keys
      key_S = start + tl.arange(0, fixed.keys)
      seen_MS = (key_S < asked)[None, :] & (buffer_M == e)[:, None]
      if fixed.options.window > 0:
        ahead_MS = (own_M + drawn_M)[:, None] - key_S[None, :]
        seen_MS = seen_MS & (ahead_MS < fixed.options.window)
      k_HS = tl.load(
        places(k_level_ptr + start, 0, fixed.h, fixed.s, fixed.keys)
      )
      v_SH = tl.load(places(v_level_ptr, start, fixed.keys, fixed.h, fixed.h))
      out_MH, top_M, total_M = read(
        out_MH, top_M, total_M, q_MH, k_HS, v_SH, seen_MS, fixed
      )
  at = (part * fixed.k + head) * count + slot
  state = out_MH, top_M, total_M
  store(state, at, queries, out_ptr, max_ptr, sum_ptr, fixed)
