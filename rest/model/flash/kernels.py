"""The three kernels: forward, gradient of queries, of keys and values.

FlashAttention-2 (Dao, arXiv:2307.08691). Logits are in units of log 2, and a
query's sum of weights is kept as its logarithm. A key is seen from itself to
its end (`rest.m_step.packing`), so that most blocks of the matrix of scores
hold nothing and are never visited. A row of a prefix h, two solutions a and b,
and a place of padding, in blocks of 2 queries and 2 keys (x: a score that
counts):

             keys   h h   a a   a a   b b   b -
             ends   9 9   6 6   6 6   9 9   9 0
    queries  h      x   |     |     |     |         block 0: key blocks 0
             h      x x |     |     |     |
                    ----+-----+-----+-----+----
             a      x x | x   |     |     |         block 1: 0 1
             a      x x | x x |     |     |
                    ----+-----+-----+-----+----
             a      x x | x x | x   |     |         block 2: 0 1 2
             a      x x | x x | x x |     |
                    ----+-----+-----+-----+----
             b      x x |     |     | x   |         block 3: 0, and 3
             b      x x |     |     | x x |
                    ----+-----+-----+-----+----
             b      x x |     |     | x x | x       block 4: 0, and 3 4
             -          |     |     |     |

A block meets the others in three loops over neighbours (`Runs`): those from the
first that it sees, the prefix's; those up to the last, its own; and what lies
between, its question's. Within a visited block a mask says which scores count.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from rest.model.flash.blocks import (
  Static,
  block_spec,
  options,
  query_specs,
  sizes,
)
from rest.model.flash.sight import (
  RUNS,
  Runs,
  Sight,
  key_runs,
  query_runs,
  sight_specs,
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
  ends_BT: jax.Array,
  positions_BT: jax.Array,
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
    ends_BT: End of the queries, from itself on, that see a key; 0 for padding.
    positions_BT: Position along the token's path, for windows.
  """
  sight = Sight(ends_BT, positions_BT)
  b, t, k, g, _ = q_BTKGH.shape
  queries, keys = sizes(static.blocks.forward, t)
  block, vector, whole = query_specs(q_BTKGH.shape, queries)
  return pl.pallas_call(
    functools.partial(_forward_kernel, static, keys),
    grid=(t // queries, k * g, b),
    in_specs=[*sight_specs(t), block, whole, whole],
    out_specs=[block, vector],
    out_shape=[
      jax.ShapeDtypeStruct(q_BTKGH.shape, q_BTKGH.dtype),
      jax.ShapeDtypeStruct((b, k, g, t), jnp.float32),
    ],
    name='flash_forward',
    **options(static, static.blocks.forward),
  )(key_runs(static, sight, queries, keys), sight, q_BTKGH, k_BTKH, v_BTKH)


def _forward_kernel(
  static: Static,
  keys: int,
  runs: Runs,
  sight: Sight,
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
  q = q_ref[:, :]
  query = _rows(_tokens(sight, pl.program_id(0) * queries, queries))

  def visit(j: jax.Array, state: tuple[jax.Array, ...]):
    out, top, total = state
    at = pl.ds(j * keys, keys)
    key = _columns(_tokens(sight, j * keys, keys))
    seen = _sees(static, query, key)
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
  out, top, total = _visit_runs(runs, visit, state)
  total = jnp.where(total > 0, total, 1.0)  # Padding sees nothing.
  out_ref[:, :] = (out / total[:, None]).astype(out_ref.dtype)
  sums_ref[:] = top + jnp.log2(total)


def backward(
  static: Static,
  q_BTKGH: jax.Array,
  k_BTKH: jax.Array,
  v_BTKH: jax.Array,
  ends_BT: jax.Array,
  positions_BT: jax.Array,
  *others: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Returns dq_BTKGH, dk_BTKH and dv_BTKH.

  Args:
    static: Compiled in.
    q_BTKGH: Queries, not scaled.
    k_BTKH: Keys.
    v_BTKH: Values.
    ends_BT: As in `forward`.
    positions_BT: Likewise.
    *others: dout_BTKGH, sums_BKGT of `forward`, and delta_BKGT, the products of
      dout with what came out.
  """
  sight = Sight(ends_BT, positions_BT)
  inputs = q_BTKGH, k_BTKH, v_BTKH, *others
  dq_BTKGH = _backward_queries(static, sight, *inputs)
  return dq_BTKGH, *_backward_keys(static, sight, *inputs)


def _backward_queries(
  static: Static, sight: Sight, q_BTKGH: jax.Array, *others: jax.Array
) -> jax.Array:
  b, t, k, g, _ = q_BTKGH.shape
  queries, keys = sizes(static.blocks.dq, t)
  block, vector, whole = query_specs(q_BTKGH.shape, queries)
  specs = block, whole, whole, block, vector, vector
  return pl.pallas_call(
    functools.partial(_dq_kernel, static, keys),
    grid=(t // queries, k * g, b),
    in_specs=[*sight_specs(t), *specs],
    out_specs=block,
    out_shape=jax.ShapeDtypeStruct(q_BTKGH.shape, q_BTKGH.dtype),
    name='flash_dq',
    **options(static, static.blocks.dq),
  )(key_runs(static, sight, queries, keys), sight, q_BTKGH, *others)


def _dq_kernel(
  static: Static,
  keys: int,
  runs: Runs,
  sight: Sight,
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
  q, dout = q_ref[:, :], dout_ref[:, :]
  sums, delta = sums_ref[:], delta_ref[:]
  query = _rows(_tokens(sight, pl.program_id(0) * queries, queries))

  def visit(j: jax.Array, dq: jax.Array) -> jax.Array:
    at = pl.ds(j * keys, keys)
    key = _columns(_tokens(sight, j * keys, keys))
    seen = _sees(static, query, key)
    k = k_ref[at, :]
    logits, slope = _logits(q, k, seen, static)
    weights = jnp.exp2(logits - sums[:, None])
    change = weights * (_dot_t(dout, v_ref[at, :]) - delta[:, None]) * slope
    return dq + _dot(change.astype(k.dtype), k)

  dq = jnp.zeros((queries, width), jnp.float32)
  dq = _visit_runs(runs, visit, dq)
  dq_ref[:, :] = (dq * static.scale).astype(dq_ref.dtype)


def _backward_keys(
  static: Static,
  sight: Sight,
  *inputs: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """Returns dk_BTKH and dv_BTKH.

  A program has a block of keys, and a whole row of all heads that share them:
  it alone writes their gradients, so that nothing is added up between programs.
  """
  q_BTKGH, k_BTKH, v_BTKH, *_ = inputs
  b, t, k, g, h = q_BTKGH.shape
  queries, keys = sizes(static.blocks.dkv, t)
  heads = block_spec((None, t, None, g, h), lambda i, j, n: (n, 0, j, 0, 0))
  vectors = block_spec((None, None, g, t), lambda i, j, n: (n, j, 0, 0))
  block = block_spec((None, keys, None, h), lambda i, j, n: (n, i, j, 0))
  return pl.pallas_call(
    functools.partial(_dkv_kernel, static, queries),
    grid=(t // keys, k, b),
    in_specs=[*sight_specs(t), heads, block, block, heads, vectors, vectors],
    out_specs=[block, block],
    out_shape=[
      jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (k_BTKH, v_BTKH)
    ],
    name='flash_dkv',
    **options(static, static.blocks.dkv),
  )(query_runs(static, sight, queries, keys), sight, *inputs)


def _dkv_kernel(
  static: Static,
  queries: int,
  runs: Runs,
  sight: Sight,
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
  block 1 (a a) meets the blocks of queries 1 and 2: from its own place to that
  of the last a; block 0, the prefix, meets all.
  """
  keys, width = k_ref.shape
  k, v = k_ref[:, :], v_ref[:, :]
  key = _rows(_tokens(sight, pl.program_id(0) * keys, keys))

  def meet_head(g: jax.Array, state: tuple[jax.Array, jax.Array]):
    def visit(i: jax.Array, state: tuple[jax.Array, jax.Array]):
      dk, dv = state
      at = pl.ds(i * queries, queries)
      query = _columns(_tokens(sight, i * queries, queries))
      seen = _sees(static, query, key)
      q, dout = q_ref[at, g, :], dout_ref[at, g, :]
      # Keys are rows here: weights then need not be turned.
      logits, slope = _logits(k, q, seen, static)
      weights = jnp.exp2(logits - sums_ref[g, at][None])
      dv = dv + _dot(weights.astype(dout.dtype), dout)
      change = _dot_t(v, dout) - delta_ref[g, at][None]
      change = weights * change * slope
      return dk + _dot(change.astype(q.dtype), q), dv

    return _visit_runs(runs, visit, state)

  zeros = jnp.zeros((keys, width), jnp.float32)
  dk, dv = jax.lax.fori_loop(0, q_ref.shape[1], meet_head, (zeros, zeros))
  dk_ref[:, :] = (dk * static.scale).astype(dk_ref.dtype)
  dv_ref[:, :] = dv.astype(dv_ref.dtype)


class _Tokens(NamedTuple):
  """A block of a row's tokens: what is known of each."""

  place: jax.Array
  end: jax.Array
  position: jax.Array


def _tokens(sight: Sight, start: Any, size: int) -> _Tokens:
  at = pl.ds(start, size)
  place = start + jnp.arange(size)
  return _Tokens(place, sight.ends_BT[at], sight.positions_BT[at])


def _rows(tokens: _Tokens) -> _Tokens:
  return _Tokens(*(x[:, None] for x in tokens))


def _columns(tokens: _Tokens) -> _Tokens:
  return _Tokens(*(x[None] for x in tokens))


def _sees(static: Static, query: _Tokens, key: _Tokens) -> jax.Array:
  """Returns whether each sees each, where one are rows, the other columns."""
  seen = (key.place <= query.place) & (query.place < key.end)
  if not static.window:
    return seen
  return seen & (query.position - key.position < static.window)


def _visit_runs(runs: Runs, visit: Callable[..., Any], state: Any) -> Any:
  """Goes through the blocks of all runs, in order."""

  def visit_run(n: jax.Array, state: Any) -> Any:
    low, high = runs.low_BIN[n], runs.high_BIN[n]
    return jax.lax.fori_loop(low, high, visit, state)

  return jax.lax.fori_loop(0, RUNS, visit_run, state)


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
