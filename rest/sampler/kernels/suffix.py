"""The kernels over each row's suffix; the second ends what all others began."""

import jax
import triton
import triton.language as tl

from rest.model.launch import (
  Struct,
  begin,
  constexpr,
  launch,
  places,
  squash,
)
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
  merge,
  part_structs,
  read,
  store,
)
from rest.sampler.table import LayerCache, Where, pick


def attend_suffix(
  q_BKGH: jax.Array,
  newest: tuple[jax.Array, jax.Array],
  question: tuple[MeanPart, int],
  prefix: MeanPart | None,
  cache: LayerCache,
  where: Where,
  options: Options,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Returns attention over all keys, and the suffix grown in place.

  Invariant: a program owns one row and one head: nobody else writes its suffix.
  Example: B = 24 rows and K = 2 make 48 programs, each with G = 3 queries in a
  tile of 16. Of long suffixes other programs read the stretches that are full.

  Args:
    q_BKGH: Queries.
    newest: Their own keys and values.
    question: What was found of it, and the keys of one of its parts.
    prefix: What was found of it, if there is one.
    cache: The layer's.
    where: Where each row stands.
    options: Static.
  """
  b, k, g, h = q_BKGH.shape
  s, blocks = cache.v2_BKSH.shape[2], options.blocks
  keys = block_of(s, blocks.suffix_keys)
  stretch = stretch_of(s, b * k, keys, blocks)
  cut = blocks.suffix_warps, blocks.suffix_stages
  drawn_B = where.drawn_QR.reshape(-1)
  asked, asked_keys = question
  fixed = Fixed(
    *(options, k, g, h, s, tile_for(g), keys, stretch, asked_keys),
    parts=len(prefix.sum_AKM) if prefix else 0,
  )
  stretches = asked  # Of which nothing is read where no stretch can be full.
  if full := (s - 1) // stretch:
    part = launch(
      stretch_attention,
      (1, k, full * b),
      [(drawn_B, b), q_BKGH, cache.k2, cache.v2_BKSH],
      part_structs(q_BKGH.dtype, full, k, b, g, h),
      fixed,
      cut,
    )
    stretches = MeanPart._make(
      x.reshape(full, k, b * g, *x.shape[4:]) for x in part
    )
  asked_B = pick(where.question_QE, where.buffer_QR).reshape(-1)
  found = tuple(asked), tuple(prefix or asked), tuple(stretches)
  out_BKGH, k2_BKSH, v2_BKSH = launch(
    suffix_attention,
    (1, k, b),
    [(drawn_B, asked_B), q_BKGH, newest, found],
    [Struct(q_BKGH.shape, q_BKGH.dtype)],
    fixed,
    cut,
    [cache.k2, cache.v2_BKSH],
  )
  return out_BKGH, k2_BKSH, v2_BKSH


@triton.jit
def stretch_attention(
  rows, q_ptr, k_ptr, v_ptr, out_ptr, max_ptr, sum_ptr, fixed: constexpr
):
  """Runs over a stretch of a row's suffix, if it is full.

  Example: drawn 9, stretches of 4 keys: the programs of the first two make a
  part each; key 8 is left to `suffix_attention`.
  """
  drawn_ptr, count = rows
  head, row = tl.program_id(1), tl.program_id(2) % count
  part = tl.program_id(2) // count
  drawn = tl.load(drawn_ptr + row)
  stop = (part + 1) * fixed.stretch
  if stop <= drawn:
    q_ptr += row * fixed.k * fixed.g * fixed.h
    q_MH, _, _ = load_queries(q_ptr, fixed.g, fixed)
    own = (row * fixed.k + head).to(tl.int64) * fixed.s * fixed.h
    state = begin(fixed.tile, fixed.h)
    state = read_keys(
      state,
      q_MH,
      k_ptr + own,
      v_ptr + own,
      stop - fixed.stretch,
      stop,
      drawn,
      fixed,
    )
    at = (part * fixed.k + head) * count + row
    store(state, at, fixed.g, out_ptr, max_ptr, sum_ptr, fixed)


@triton.jit
def suffix_attention(
  lengths, q_ptr, newest, found, k_ptr, v_ptr, out_ptr, fixed: constexpr
):
  """Begins with the newest key, runs over what is left, and adds the parts.

  Invariant: of the suffix, keys before `drawn` are read and the one at `drawn`
  is written. Example: drawn 5, blocks of 4 keys: two blocks, of which the keys
  0 to 4 are read; the query's own key, number 5, comes from registers.
  """
  head, row, rows = tl.program_id(1), tl.program_id(2), tl.num_programs(2)
  drawn_ptr, asked_ptr = lengths
  q_ptr += row * fixed.k * fixed.g * fixed.h
  q_MH, _, is_query_M = load_queries(q_ptr, fixed.g, fixed)
  drawn, asked = tl.load(drawn_ptr + row), tl.load(asked_ptr + row)
  own, h = row * fixed.k + head, tl.arange(0, fixed.h)
  new_k_ptr, new_v_ptr = newest
  question, prefix, stretches = found
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
  full = drawn // fixed.stretch
  out_MH, top_M, total_M = read_keys(
    (out_MH, top_M, total_M),
    q_MH,
    k_ptr,
    v_ptr,
    full * fixed.stretch,
    drawn,
    drawn,
    fixed,
  )
  top_M *= fixed.options.unit
  # Parts lie as [A, K, B * G].
  part_M = (head * rows + row) * fixed.g + tl.arange(0, fixed.tile)
  size = fixed.k * rows * fixed.g
  for part in range(tl.cdiv(asked, fixed.asked)):
    out_MH, top_M, total_M = merge(
      out_MH, top_M, total_M, question, part_M + part * size, is_query_M
    )
  for part in range(fixed.parts):
    out_MH, top_M, total_M = merge(
      out_MH, top_M, total_M, prefix, part_M + part * size, is_query_M
    )
  for part in range(full):
    out_MH, top_M, total_M = merge(
      out_MH, top_M, total_M, stretches, part_M + part * size, is_query_M
    )
  at_MH = places(0, own * fixed.g, fixed.tile, fixed.h, fixed.h)
  out_MH = (out_MH / total_M[:, None]).to(q_MH.dtype)
  tl.store(out_ptr + at_MH, out_MH, mask=is_query_M[:, None])
  tl.store(k_ptr + drawn * fixed.h + h, new_k_H)
  tl.store(v_ptr + drawn * fixed.h + h, new_v_H)


@triton.jit
def read_keys(state, q_MH, k_ptr, v_ptr, start, stop, drawn, fixed: constexpr):
  """Adds a row's keys from start to stop, which are before `drawn`."""
  out_MH, top_M, total_M = state
  for first in range(start, stop, fixed.keys):
    key_S = first + tl.arange(0, fixed.keys)
    has_S = key_S < stop  # The rest is not even read.
    at_SH = places(0, first, fixed.keys, fixed.h, fixed.h)
    k_SH = tl.load(k_ptr + at_SH, mask=has_S[:, None], other=0.0)
    v_SH = tl.load(v_ptr + at_SH, mask=has_S[:, None], other=0.0)
    seen_S = has_S
    if fixed.options.window > 0:
      seen_S = seen_S & (drawn - key_S < fixed.options.window)
    out_MH, top_M, total_M = read(
      out_MH, top_M, total_M, q_MH, k_SH.T, v_SH, seen_S[None, :], fixed
    )
  return out_MH, top_M, total_M
