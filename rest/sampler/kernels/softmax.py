"""A softmax that runs over blocks of keys, inside a kernel.

Keys come a block at a time, and no logit is kept: a larger one than all before
scales down what was summed (Milakov and Gimelshein, arXiv:1805.02867).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from rest.model.transformer import softcap

NEVER = -1e30  # The logit of a key that must not be seen.
Ref = Any  # An array inside a kernel: Pallas has no type that its calls share.


class Running(NamedTuple):
  """A softmax over the keys so far, all in float32.

  Attributes:
    out_MH: Sums of values, weighted, not normalised.
    max_M: The largest logit.
    sum_M: Sums of weights, relative to it.
  """

  out_MH: jax.Array
  max_M: jax.Array
  sum_M: jax.Array


class MeanPart(NamedTuple):
  """Attention over some of the keys, as one kernel hands it to the next.

  Attributes:
    out_AKMH: Means of values, rounded to their type, as the result is.
    max_AKM: The largest logit, in float32.
    sum_AKM: Sums of weights, relative to it, in float32.
  """

  out_AKMH: jax.Array
  max_AKM: jax.Array
  sum_AKM: jax.Array


def begin(queries: int, width: int) -> Running:
  """Returns a softmax over no keys."""
  return Running(
    jnp.zeros((queries, width), jnp.float32),
    jnp.full((queries,), NEVER, jnp.float32),
    jnp.zeros((queries,), jnp.float32),
  )


def grow(
  state: Running,
  q_MH: jax.Array,
  k_HS: jax.Array,
  v_SH: jax.Array,
  seen_MS: jax.Array,
  cap: float,
) -> Running:
  """Adds a block of keys.

  Invariant: out_MH / sum_M is the attention over all keys so far, whatever
  blocks they came in. Example: after a key of logit 0 and value 4, the state is
  (4, 0, 1). A second one of logit ln 3 and value 8 scales it by 1/3 and adds
  (8, ln 3, 1): (28/3, ln 3, 4/3), and 28/4 = 7 = (1 * 4 + 3 * 8) / 4.
  """
  logit_MS = softcap(
    jnp.dot(q_MH, k_HS, preferred_element_type=jnp.float32), cap
  )
  logit_MS = jnp.where(seen_MS, logit_MS, NEVER)
  max_M = jnp.maximum(state.max_M, logit_MS.max(axis=1))
  weight_MS = jnp.exp(logit_MS - max_M[:, None])
  share_M = jnp.exp(state.max_M - max_M)
  out_MH = state.out_MH * share_M[:, None] + jnp.dot(
    weight_MS.astype(v_SH.dtype), v_SH, preferred_element_type=jnp.float32
  )
  return Running(out_MH, max_M, state.sum_M * share_M + weight_MS.sum(axis=1))


def merge(state: Running, part: Running) -> Running:
  """Adds another softmax, of which `out_MH` is a mean."""
  max_M = jnp.maximum(state.max_M, part.max_M)
  share_M = jnp.exp(state.max_M - max_M)
  gain_M = part.sum_M * jnp.exp(part.max_M - max_M)
  out_MH = (
    state.out_MH * share_M[:, None]
    + part.out_MH.astype(jnp.float32) * gain_M[:, None]
  )
  return Running(out_MH, max_M, state.sum_M * share_M + gain_M)


def load_queries(
  q_ref: Ref, tile: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Returns a program's queries, of which rows they are, and if they exist.

  Example: of rows with G = 3 heads, and a tile of 16, the second program has
  the queries 16, 17, 18, ... of the rows 5, 5, 6, ...

  Args:
    q_ref: q_BGH, of all rows that the grid's first axis goes over.
    tile: Queries of a program.
  """
  rows, groups, width = q_ref.shape
  query_M = pl.program_id(0) * tile + jnp.arange(tile)
  row_M, is_query_M = query_M // groups, query_M < rows * groups
  at = (row_M[:, None], (query_M % groups)[:, None], jnp.arange(width)[None])
  q_MH = plgpu.load(q_ref.at[at], mask=is_query_M[:, None], other=0.0)
  return q_MH, row_M, is_query_M


def store(
  state: Running,
  is_query_M: jax.Array,
  out_ref: Ref,
  max_ref: Ref,
  sum_ref: Ref,
) -> None:
  """Writes a softmax as a program's tile of a `MeanPart`."""
  mask_M1 = is_query_M[:, None]
  # There may be no key.
  total_M = jnp.where(state.sum_M > 0, state.sum_M, 1.0)
  mean_MH = state.out_MH / total_M[:, None]
  plgpu.store(out_ref.at[:, :], mean_MH.astype(out_ref.dtype), mask=mask_M1)
  plgpu.store(max_ref.at[:], state.max_M, mask=is_query_M)
  plgpu.store(sum_ref.at[:], state.sum_M, mask=is_query_M)


def part_shapes(dtype: jnp.dtype, *axes: int) -> list[jax.ShapeDtypeStruct]:
  """Returns what a kernel that makes a `MeanPart` puts out."""
  one = jax.ShapeDtypeStruct(axes[:-1], jnp.float32)
  return [jax.ShapeDtypeStruct(axes, dtype), one, one]
