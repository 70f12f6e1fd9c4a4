"""A softmax that runs over blocks of keys, inside a kernel.

It is three arrays: out_MH, sums of values, weighted; top_M, the largest score;
and total_M, sums of weights relative to it (see `rest.model.launch.grow`).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import triton
import triton.language as tl

from rest.model.launch import LEAST, NEVER, Struct, constexpr, grow, squash


class MeanPart(NamedTuple):
  """Attention over some of the keys, as one kernel hands it to the next.

  Attributes:
    out_AKMH: Means of values, rounded to their type, as the result is.
    max_AKM: The largest logit, in units of log 2 and float32.
    sum_AKM: Sums of weights, relative to it, in float32.
  """

  out_AKMH: jax.Array
  max_AKM: jax.Array
  sum_AKM: jax.Array


def part_structs(dtype: jnp.dtype, *axes: int) -> list[Struct]:
  """Returns what a kernel that makes a `MeanPart` puts out."""
  one = Struct(axes[:-1], jnp.float32)
  return [Struct(axes, dtype), one, one]


@triton.jit
def read(out_MH, top_M, total_M, q_MH, k_HS, v_SH, seen_MS, fixed: constexpr):
  """Adds a block of keys; a score times `unit` is a logit, in log 2."""
  score_MS = tl.dot(q_MH, k_HS)
  if fixed.options.cap > 0:
    score_MS = squash(score_MS, fixed.options.cap)
  score_MS = tl.where(seen_MS, score_MS, NEVER)
  return grow(out_MH, top_M, total_M, score_MS, v_SH, fixed.options.unit)


@triton.jit
def merge(out_MH, top_M, total_M, part, at_M, is_query_M):
  """Adds what another kernel found of the queries at some places; in log 2.

  Invariant: out_MH / total_M is the attention over the keys of both. Example: a
  value of 4 with logit 0 is (4, 0, 1); one of 8 with log2(3) is the mean 8, the
  maximum log2(3) and the sum 1. Together (28/3, log2(3), 4/3), and 28/4 = 7 =
  (1 x 4 + 3 x 8) / 4.
  """
  out_ptr, max_ptr, sum_ptr = part
  width: tl.constexpr = out_MH.shape[1]
  at_MH = at_M[:, None] * width + tl.arange(0, width)[None, :]
  mean_MH = tl.load(out_ptr + at_MH, mask=is_query_M[:, None], other=0.0)
  max_M = tl.load(max_ptr + at_M, mask=is_query_M, other=LEAST)
  sum_M = tl.load(sum_ptr + at_M, mask=is_query_M, other=0.0)
  above_M = tl.maximum(top_M, max_M)
  share_M = tl.exp2(top_M - above_M)
  gain_M = sum_M * tl.exp2(max_M - above_M)
  out_MH = out_MH * share_M[:, None] + mean_MH.to(tl.float32) * gain_M[:, None]
  return out_MH, above_M, total_M * share_M + gain_M


@triton.jit
def load_queries(q_ptr, queries, fixed: constexpr):
  """Returns a program's queries, of which rows they are, and if they exist.

  Example: of rows with G = 3 heads, and a tile of 16, the second program has
  the queries 16, 17, 18, ... of the rows 5, 5, 6, ...

  Args:
    q_ptr: q_BKGH, from the first row that the grid's first axis goes over.
    queries: How many share a head, of all that it goes over.
    fixed: Static.
  """
  query_M = tl.program_id(0) * fixed.tile + tl.arange(0, fixed.tile)
  row_M, is_query_M = query_M // fixed.g, query_M < queries
  head_M = (row_M * fixed.k + tl.program_id(1)) * fixed.g + query_M % fixed.g
  at_MH = head_M[:, None] * fixed.h + tl.arange(0, fixed.h)[None, :]
  q_MH = tl.load(q_ptr + at_MH, mask=is_query_M[:, None], other=0.0)
  return q_MH, row_M, is_query_M


@triton.jit
def store(state, part, queries, out_ptr, max_ptr, sum_ptr, fixed: constexpr):
  """Writes out, top and total as a program's tile of a `MeanPart`.

  Parts, of so many queries each, lie one behind another: this is of one.
  """
  out_MH, top_M, total_M = state
  query_M = tl.program_id(0) * fixed.tile + tl.arange(0, fixed.tile)
  is_query_M, at_M = query_M < queries, part * queries + query_M
  # There may be no key.
  mean_MH = out_MH / tl.where(total_M > 0, total_M, 1.0)[:, None]
  at_MH = at_M[:, None] * fixed.h + tl.arange(0, fixed.h)[None, :]
  mean_MH = mean_MH.to(out_ptr.dtype.element_ty)
  tl.store(out_ptr + at_MH, mean_MH, mask=is_query_M[:, None])
  tl.store(max_ptr + at_M, top_M * fixed.options.unit, mask=is_query_M)
  tl.store(sum_ptr + at_M, total_M, mask=is_query_M)
