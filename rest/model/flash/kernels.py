"""The three kernels: forward, gradient of queries, of keys and values.

FlashAttention-2 (Dao, arXiv:2307.08691). Logits are in units of log 2, and a
query's sum of weights is kept as its logarithm. What a query sees is a span of
keys, from a first one to itself, so that most blocks of the matrix of scores
hold nothing and are never visited. A row of two segments, a and b, and a place
of padding, in blocks of 2 queries and 2 keys (x: a score that counts):

             keys   a a   a b   b b   b -
    queries  a      x   |     |     |         block 0: key blocks [0, 1)
             a      x x |     |     |
                    ----+-----+-----+----
             a      x x | x   |     |         block 1: [0, 2)
             b          |   x |     |
                    ----+-----+-----+----
             b          |   x | x   |         block 2: [1, 3)
             b          |   x | x x |
                    ----+-----+-----+----
             b          |   x | x x | x       block 3: [1, 4)
             -          |     |     |

A block of queries visits from the block of the first key that any of them sees
(`_first_block`: 0 0 1 1) up to its own place; a block of keys visits queries
from its own place to the last that sees any of them. Within a visited block a
mask says which scores count.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from rest.model.flash.blocks import (
  Static,
  block_spec,
  first_specs,
  options,
  query_specs,
  sizes,
)

# A logit that must not be seen, and the least that can be: far enough above
# that where nothing is seen all weights are 0, not equal.
_NEVER = -1e30
_LEAST = -1e20
_LOG2_E = math.log2(math.e)

# A block of an array, in the GPU's memory.
_Ref = Any


def forward(
  static: Static,
  q_BTKGH: jax.Array,
  k_BTKH: jax.Array,
  v_BTKH: jax.Array,
  first_BT: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """Returns out_BTKGH, and sums_BKGT: log2 of the sums of weights.

  A program of the grid has a block of queries of one head and row, and all keys
  of the head: rows of 2,048 in blocks of 128, 12 heads and 16 rows are
  16 x 12 x 16 programs.

  Args:
    static: Compiled in.
    q_BTKGH: Queries, not scaled.
    k_BTKH: Keys.
    v_BTKH: Values.
    first_BT: First key that each query sees; the length if it sees none.
  """
  b, t, k, g, _ = q_BTKGH.shape
  queries, keys = sizes(static.blocks.forward, t)
  block, vector, whole = query_specs(q_BTKGH.shape, queries)
  return pl.pallas_call(
    functools.partial(_forward_kernel, static, keys),
    grid=(t // queries, k * g, b),
    in_specs=[*first_specs(queries), block, whole, whole],
    out_specs=[block, vector],
    out_shape=[
      jax.ShapeDtypeStruct(q_BTKGH.shape, q_BTKGH.dtype),
      jax.ShapeDtypeStruct((b, k, g, t), jnp.float32),
    ],
    name='flash_forward',
    **options(static, static.blocks.forward),
  )(_first_block(first_BT, queries, keys), first_BT, q_BTKGH, k_BTKH, v_BTKH)


def _forward_kernel(
  static: Static,
  keys: int,
  low_ref: _Ref,
  first_ref: _Ref,
  q_ref: _Ref,
  k_ref: _Ref,
  v_ref: _Ref,
  out_ref: _Ref,
  sums_ref: _Ref,
) -> None:
  """Softmax over blocks of keys, each met once (the online softmax).

  Invariant, for each query behind each block: `top` is the largest logit so
  far, `total` the sum of 2^(logit - top), and `out` the sum of
  2^(logit - top) x value. A larger logit makes what was summed smaller:

    logits of block 0: 1, 3    top 3, total 2^-2 + 1 = 1.25
    logits of block 1: 4       top 4, total 1.25 x 2^-1 + 1 = 1.625
    kept: 4 + log2(1.625) = log2(26), and 2^1 + 2^3 + 2^4 = 26
  """
  queries, width = q_ref.shape
  first, q = first_ref[:], q_ref[:, :]
  start = pl.program_id(0) * queries
  query = start + jnp.arange(queries)

  def visit(j: jax.Array, state: tuple[jax.Array, ...]):
    out, top, total = state
    at = pl.ds(j * keys, keys)
    key = j * keys + jnp.arange(keys)
    seen = _sees(first[:, None], query[:, None], key[None])
    logits, _ = _logits(q, k_ref[at, :], seen, static)
    above = jnp.maximum(top, logits.max(axis=1))
    weights = jnp.exp2(logits - above[:, None])
    share = jnp.exp2(top - above)
    v = v_ref[at, :]
    out = out * share[:, None] + _dot(weights.astype(v.dtype), v)
    return out, above, total * share + weights.sum(axis=1)

  state = (
    jnp.zeros((queries, width), jnp.float32),
    jnp.full((queries,), _LEAST, jnp.float32),
    jnp.zeros((queries,), jnp.float32),
  )
  high = pl.cdiv(start + queries, keys)
  out, top, total = jax.lax.fori_loop(low_ref[0], high, visit, state)
  total = jnp.where(total > 0, total, 1.0)  # Padding sees nothing.
  out_ref[:, :] = (out / total[:, None]).astype(out_ref.dtype)
  sums_ref[:] = top + jnp.log2(total)


def backward(
  static: Static,
  q_BTKGH: jax.Array,
  k_BTKH: jax.Array,
  v_BTKH: jax.Array,
  first_BT: jax.Array,
  end_BT: jax.Array,
  *others: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Returns dq_BTKGH, dk_BTKH and dv_BTKH.

  Args:
    static: Compiled in.
    q_BTKGH: Queries, not scaled.
    k_BTKH: Keys.
    v_BTKH: Values.
    first_BT: As in `forward`.
    end_BT: End of the queries that see each key; 0 if none do.
    *others: dout_BTKGH, sums_BKGT of `forward`, and delta_BKGT, the products of
      dout with what came out.
  """
  inputs = q_BTKGH, k_BTKH, v_BTKH, *others
  dq_BTKGH = _backward_queries(static, first_BT, *inputs)
  return dq_BTKGH, *_backward_keys(static, first_BT, end_BT, *inputs)


def _backward_queries(
  static: Static, first_BT: jax.Array, q_BTKGH: jax.Array, *others: jax.Array
) -> jax.Array:
  b, t, k, g, _ = q_BTKGH.shape
  queries, keys = sizes(static.blocks.dq, t)
  block, vector, whole = query_specs(q_BTKGH.shape, queries)
  specs = block, whole, whole, block, vector, vector
  return pl.pallas_call(
    functools.partial(_dq_kernel, static, keys),
    grid=(t // queries, k * g, b),
    in_specs=[*first_specs(queries), *specs],
    out_specs=block,
    out_shape=jax.ShapeDtypeStruct(q_BTKGH.shape, q_BTKGH.dtype),
    name='flash_dq',
    **options(static, static.blocks.dq),
  )(_first_block(first_BT, queries, keys), first_BT, q_BTKGH, *others)


def _dq_kernel(
  static: Static,
  keys: int,
  low_ref: _Ref,
  first_ref: _Ref,
  q_ref: _Ref,
  k_ref: _Ref,
  v_ref: _Ref,
  dout_ref: _Ref,
  sums_ref: _Ref,
  delta_ref: _Ref,
  dq_ref: _Ref,
) -> None:
  """Gradient of a block of queries, from the blocks of keys that it sees.

  Invariant: `dq` is the sum over the keys met so far of dlogit x key, where
  dlogit = weight x (dout . value - delta), and delta = dout . out. Weights are
  made again from logits and their kept sum, never stored. With two keys of
  weights 1/4 and 3/4 and dout . value 8 and 0, delta is 2 and the two dlogits
  are 1/4 x 6 = 1.5 and 3/4 x -2 = -1.5: they always add up to 0.
  """
  queries, width = q_ref.shape
  first, q, dout = first_ref[:], q_ref[:, :], dout_ref[:, :]
  sums, delta = sums_ref[:], delta_ref[:]
  start = pl.program_id(0) * queries
  query = start + jnp.arange(queries)

  def visit(j: jax.Array, dq: jax.Array) -> jax.Array:
    at = pl.ds(j * keys, keys)
    key = j * keys + jnp.arange(keys)
    seen = _sees(first[:, None], query[:, None], key[None])
    k = k_ref[at, :]
    logits, slope = _logits(q, k, seen, static)
    weights = jnp.exp2(logits - sums[:, None])
    change = weights * (_dot_t(dout, v_ref[at, :]) - delta[:, None]) * slope
    return dq + _dot(change.astype(k.dtype), k)

  high = pl.cdiv(start + queries, keys)
  dq = jnp.zeros((queries, width), jnp.float32)
  dq = jax.lax.fori_loop(low_ref[0], high, visit, dq)
  dq_ref[:, :] = (dq * static.scale).astype(dq_ref.dtype)


def _backward_keys(
  static: Static,
  first_BT: jax.Array,
  end_BT: jax.Array,
  q_BTKGH: jax.Array,
  k_BTKH: jax.Array,
  v_BTKH: jax.Array,
  *others: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """Returns dk_BTKH and dv_BTKH.

  A program has a block of keys, and a whole row of all heads that share them:
  it alone writes their gradients, so that nothing is added up between programs.
  """
  b, t, k, g, h = q_BTKGH.shape
  queries, keys = sizes(static.blocks.dkv, t)
  first = block_spec((None, t), lambda i, j, n: (n, 0))
  heads = block_spec((None, t, None, g, h), lambda i, j, n: (n, 0, j, 0, 0))
  vectors = block_spec((None, None, g, t), lambda i, j, n: (n, j, 0, 0))
  block = block_spec((None, keys, None, h), lambda i, j, n: (n, i, j, 0))
  high = block_spec((None, 1), lambda i, j, n: (n, i))
  high_BI = pl.cdiv(end_BT.reshape(b, -1, keys).max(axis=-1), queries)
  return pl.pallas_call(
    functools.partial(_dkv_kernel, static, queries),
    grid=(t // keys, k, b),
    in_specs=[high, first, heads, block, block, heads, vectors, vectors],
    out_specs=[block, block],
    out_shape=[
      jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (k_BTKH, v_BTKH)
    ],
    name='flash_dkv',
    **options(static, static.blocks.dkv),
  )(high_BI, first_BT, q_BTKGH, k_BTKH, v_BTKH, *others)


def _dkv_kernel(
  static: Static,
  queries: int,
  high_ref: _Ref,
  first_ref: _Ref,
  q_ref: _Ref,
  k_ref: _Ref,
  v_ref: _Ref,
  dout_ref: _Ref,
  sums_ref: _Ref,
  delta_ref: _Ref,
  dk_ref: _Ref,
  dv_ref: _Ref,
) -> None:
  """Gradients of a block of keys and values, from the queries that see it.

  Invariant: over the heads and blocks of queries met so far, `dv` is the sum of
  weight x dout and `dk` that of dlogit x query. In the module's drawing, keys
  block 1 (a b) meets the blocks of queries [1, 4): from its own place to that
  of the last b.
  """
  keys, width = k_ref.shape
  k, v = k_ref[:, :], v_ref[:, :]
  start = pl.program_id(0) * keys
  key = start + jnp.arange(keys)

  def meet_head(g: jax.Array, state: tuple[jax.Array, jax.Array]):
    def visit(i: jax.Array, state: tuple[jax.Array, jax.Array]):
      dk, dv = state
      at = pl.ds(i * queries, queries)
      query = i * queries + jnp.arange(queries)
      seen = _sees(first_ref[at][None], query[None], key[:, None])
      q, dout = q_ref[at, g, :], dout_ref[at, g, :]
      # Keys are rows here: weights then need not be turned.
      logits, slope = _logits(k, q, seen, static)
      weights = jnp.exp2(logits - sums_ref[g, at][None])
      dv = dv + _dot(weights.astype(dout.dtype), dout)
      change = _dot_t(v, dout) - delta_ref[g, at][None]
      change = weights * change * slope
      return dk + _dot(change.astype(q.dtype), q), dv

    return jax.lax.fori_loop(start // queries, high_ref[0], visit, state)

  zeros = jnp.zeros((keys, width), jnp.float32)
  dk, dv = jax.lax.fori_loop(0, q_ref.shape[1], meet_head, (zeros, zeros))
  dk_ref[:, :] = (dk * static.scale).astype(dk_ref.dtype)
  dv_ref[:, :] = dv.astype(dv_ref.dtype)


def _sees(first: jax.Array, query: jax.Array, key: jax.Array) -> jax.Array:
  return (key >= first) & (key <= query)


def _logits(
  a: jax.Array, b: jax.Array, seen: jax.Array, static: Static
) -> tuple[jax.Array, jax.Array | float]:
  """Returns logits in units of log 2, and how they change with products."""
  products = _dot_t(a, b)
  if not static.cap:
    return jnp.where(seen, products * (static.scale * _LOG2_E), _NEVER), 1.0
  squashed = jnp.tanh(products * (static.scale / static.cap))
  logits = jnp.where(seen, squashed * (static.cap * _LOG2_E), _NEVER)
  return logits, 1.0 - squashed * squashed


def _dot(a: jax.Array, b: jax.Array) -> jax.Array:
  return jnp.dot(a, b, preferred_element_type=jnp.float32)


def _dot_t(a: jax.Array, b: jax.Array) -> jax.Array:
  """Returns the products of rows with rows."""
  return jax.lax.dot_general(
    a, b, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32
  )


def _first_block(first_BT: jax.Array, queries: int, keys: int) -> jax.Array:
  """Returns the first block of keys that each block of queries sees, BI."""
  batch = first_BT.shape[0]
  return first_BT.reshape(batch, -1, queries).min(axis=-1) // keys
