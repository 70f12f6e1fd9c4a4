"""Which blocks see which: what the kernels visit, and what they leave out."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rest.model.flash.blocks import Static

# Runs of neighbouring blocks that one visits.
RUNS = 3


class Sight(NamedTuple):
  """What sees what.

  Attributes:
    ends_BT: End of the queries, from itself on, that see a key; 0 for padding.
    positions_BT: Position along the token's path, for windows.
  """

  ends_BT: jax.Array
  positions_BT: jax.Array


class Runs(NamedTuple):
  """Which blocks a program visits: three runs, some empty.

  Attributes:
    low_BIN: First block of each run that a block visits.
    high_BIN: End of the run.
  """

  low_BIN: jax.Array
  high_BIN: jax.Array


def key_runs(static: Static, sight: Sight, queries: int, keys: int) -> Runs:
  """Returns the blocks of keys that each block of queries visits."""
  return _runs(_seen_blocks(static, sight, queries, keys))


def query_runs(static: Static, sight: Sight, queries: int, keys: int) -> Runs:
  """Returns the blocks of queries that each block of keys visits."""
  seen_BIM = _seen_blocks(static, sight, queries, keys)
  return _runs(jnp.swapaxes(seen_BIM, 1, 2))


def _seen_blocks(
  static: Static, sight: Sight, queries: int, keys: int
) -> jax.Array:
  """Returns whether any query of block I sees any key of block M, seen_BIM.

  Without a window that is exact: a key from before the block of queries, and
  that ends behind its first, is seen by the first.
  """
  ends_BT, positions_BT = sight
  batch, length = ends_BT.shape
  first_I = jnp.arange(0, length, queries)[:, None]
  first_M = jnp.arange(0, length, keys)[None]
  end_BM = ends_BT.reshape(batch, -1, keys).max(axis=-1)
  seen_BIM = (first_M < first_I + queries)[None] & (
    end_BM[:, None] > jnp.maximum(first_I, first_M)[None]
  )
  if not static.window:
    return seen_BIM
  near_BI = positions_BT.reshape(batch, -1, queries).min(axis=-1)
  far_BM = positions_BT.reshape(batch, -1, keys).max(axis=-1)
  return seen_BIM & (near_BI[:, :, None] - far_BM[:, None] < static.window)


def _runs(seen_BIM: jax.Array) -> Runs:
  """Returns all blocks that are seen, and few others, as three runs.

  Invariant: no block is in two runs, and one that is seen is in one. Of blocks
  1 1 0 1 0 1 0 0 1 1, the first run is [0, 2), the last [8, 10), and what lies
  between [3, 6), with one that is not seen.
  """
  blocks = seen_BIM.shape[-1]
  block_11M = jnp.arange(blocks, dtype=jnp.int32)[None, None]

  def first(found_BIM: jax.Array) -> jax.Array:
    return jnp.where(found_BIM, block_11M, blocks).min(axis=-1, keepdims=True)

  def end(found_BIM: jax.Array) -> jax.Array:
    return jnp.where(found_BIM, block_11M + 1, 0).max(axis=-1, keepdims=True)

  start, stop = first(seen_BIM), end(seen_BIM)
  first_end = first(~seen_BIM & (block_11M >= start))
  last_start = jnp.maximum(end(~seen_BIM & (block_11M < stop)), first_end)
  between = seen_BIM & (block_11M >= first_end) & (block_11M < last_start)
  low = start, first(between), last_start
  high = first_end, end(between), stop
  return Runs(*(jnp.concatenate(x, axis=-1) for x in (low, high)))
