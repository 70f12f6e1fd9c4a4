"""The kernel over the questions: two of a slot, read by the slot's rows."""

import jax
import jax.numpy as jnp
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
from rest.sampler.table import BUFFERS, LayerCache, Where

_BUFFERS = tl.constexpr(BUFFERS)


def attend_questions(
  q_BKGH: jax.Array, cache: LayerCache, where: Where, options: Options
) -> MeanPart:
  """Returns attention of each row over its own question, in one part.

  Invariant: a program has queries of one slot and one head only, so that the
  keys of a slot's questions are read once a tile. Example: Q = 3 slots of R = 8
  rows, G = 6, K = 2: tiles of 64 hold a slot's 48 queries, and there are
  1 * 2 * 3 programs. What comes out by slot, [K, Q, R * G], lies as all rows
  do, [K, B * G].
  """
  b, k, g, h = q_BKGH.shape
  q, r = where.buffer_QR.shape
  m, s, blocks = r * g, cache.v1_QEKSH.shape[3], options.blocks
  tile = min(blocks.question_queries, tile_for(m))
  # A buffer that no row answers need not be read.
  is_used_QE = jnp.stack(
    [(where.buffer_QR == e).any(axis=1) for e in range(BUFFERS)], axis=1
  )
  used_QE = where.question_QE * is_used_QE
  slots = used_QE, where.question_QE, where.buffer_QR, where.drawn_QR
  keys = block_of(s, blocks.question_keys)
  part = launch(
    question_attention,
    (-(-m // tile), k, q),
    [slots, m, q_BKGH, cache.k1_QEKHS, cache.v1_QEKSH],
    part_structs(q_BKGH.dtype, k, q, m, h),
    Fixed(options, k, g, h, s, tile, keys),
    (blocks.question_warps, blocks.question_stages),
  )
  return MeanPart._make(x.reshape(1, k, b * g, *x.shape[3:]) for x in part)


@triton.jit
def question_attention(
  slots,
  queries,
  q_ptr,
  k_ptr,
  v_ptr,
  out_ptr,
  max_ptr,
  sum_ptr,
  fixed: constexpr,
):
  """Runs over both questions of a slot.

  Invariant: a query sees the keys of its own question, in order. Example:
  questions of 3 and 5 tokens, blocks of 4 keys, of which all rows answer the
  second: `used` is (0, 5), and blocks 0 and 1 of it are read.
  """
  head, slot = tl.program_id(1), tl.program_id(2)
  used_ptr, question_ptr, buffer_ptr, drawn_ptr = slots
  q_ptr += slot * queries * fixed.k * fixed.h
  q_MH, row_M, is_query_M = load_queries(q_ptr, queries, fixed)
  row_M += slot * (queries // fixed.g)
  buffer_M = tl.load(buffer_ptr + row_M, mask=is_query_M, other=0)
  drawn_M = tl.load(drawn_ptr + row_M, mask=is_query_M, other=0)
  first = slot * _BUFFERS
  own_M = tl.load(question_ptr + first + buffer_M)
  out_MH, top_M, total_M = begin(fixed.tile, fixed.h)
  for e in range(_BUFFERS):
    level = (first + e).to(tl.int64) * fixed.k + head
    k_level_ptr = k_ptr + level * fixed.h * fixed.s
    v_level_ptr = v_ptr + level * fixed.h * fixed.s
    used = tl.load(used_ptr + first + e)
    for block in range(tl.cdiv(used, fixed.keys)):
      start = block * fixed.keys
      key_S = start + tl.arange(0, fixed.keys)
      seen_MS = (key_S < used)[None, :] & (buffer_M == e)[:, None]
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
  at, state = head * tl.num_programs(2) + slot, (out_MH, top_M, total_M)
  store(state, at, queries, out_ptr, max_ptr, sum_ptr, fixed)
