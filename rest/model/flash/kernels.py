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

from typing import Any

import jax
import jax.numpy as jnp
import triton
import triton.language as tl

from rest.model.flash.blocks import Cut, Fixed, Static, sizes
from rest.model.flash.sight import RUNS, Sight, key_runs, query_runs
from rest.model.launch import (
  NEVER,
  Struct,
  begin,
  constexpr,
  grow,
  launch,
  places,
  squash,
  zeros,
)

_RUNS = tl.constexpr(RUNS)


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
  b, t, k, g, _ = q_BTKGH.shape
  sums = Struct((b, k, g, t), jnp.float32)
  sight = Sight(ends_BT, positions_BT)
  arrays = ((q_BTKGH, k_BTKH, v_BTKH),)
  out_BTKGH, sums_BKGT = _launch(
    *(flash_forward, static, static.blocks.forward),
    *(sight, arrays, [_like(q_BTKGH), sums]),
  )
  return out_BTKGH, sums_BKGT


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

  A program of the second kernel has a block of keys, and a whole row of all
  heads that share them: it alone writes their gradients, so that nothing is
  added up between programs.

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
  arrays = (q_BTKGH, k_BTKH, v_BTKH), others
  (dq_BTKGH,) = _launch(
    flash_dq, static, static.blocks.dq, sight, arrays, [_like(q_BTKGH)]
  )
  dk_BTKH, dv_BTKH = _launch(
    *(flash_dkv, static, static.blocks.dkv),
    *(sight, arrays, [_like(k_BTKH), _like(v_BTKH)]),
    by_keys=True,
  )
  return dq_BTKGH, dk_BTKH, dv_BTKH


def _launch(
  kernel: Any,
  static: Static,
  cut: Cut,
  sight: Sight,
  arrays: tuple[tuple[jax.Array, ...], ...],
  writes: list[Struct],
  by_keys: bool = False,
) -> list[jax.Array]:
  b, t, k, g, h = arrays[0][0].shape
  queries, keys = sizes(cut, t)
  if by_keys:
    runs, grid = query_runs(static, sight, queries, keys), (t // keys, k, b)
  else:
    runs, grid = (
      key_runs(static, sight, queries, keys),
      (t // queries, k * g, b),
    )
  reads = [(*runs, *sight), *arrays]
  fixed = Fixed(static, t, k, g, h, queries, keys)
  return launch(kernel, grid, reads, writes, fixed, (cut.warps, cut.stages))


def _like(x: jax.Array) -> Struct:
  return Struct(x.shape, x.dtype)


@triton.jit
def flash_forward(sight, inputs, out_ptr, sums_ptr, fixed: constexpr):
  """Attention of a block of queries, from the blocks of keys that it sees.

  Invariant: that of `grow`, whose example is one query here. Padding sees
  nothing: its sum is 0, and so is what comes out.
  """
  head = tl.program_id(1)
  heads: tl.constexpr = fixed.k * fixed.g
  low_ptr, high_ptr, sight = _own(sight, fixed)
  q_ptr, k_ptr, v_ptr = inputs
  first = tl.program_id(0) * fixed.queries
  at = places(0, first, fixed.queries, heads * fixed.h, fixed.h)
  q = tl.load(_head(q_ptr, head, heads, fixed) + at)
  k_ptr = _head(k_ptr, head // fixed.g, fixed.k, fixed)
  v_ptr = _head(v_ptr, head // fixed.g, fixed.k, fixed)
  query = first + tl.arange(0, fixed.queries)
  out, top, total = begin(fixed.queries, fixed.h)
  for run in range(_RUNS):
    for j in range(tl.load(low_ptr + run), tl.load(high_ptr + run)):
      key = j * fixed.keys + tl.arange(0, fixed.keys)
      seen = _sees(sight, query[:, None], key[None, :], fixed)
      k_at = places(0, j * fixed.keys, fixed.keys, fixed.k * fixed.h, fixed.h)
      score, _ = _scores(q, tl.load(k_ptr + k_at), seen, fixed)
      v = tl.load(v_ptr + k_at)
      out, top, total = grow(out, top, total, score, v, fixed.static.unit)
  total = tl.where(total > 0, total, 1.0)
  out = (out / total[:, None]).to(q.dtype)
  tl.store(_head(out_ptr, head, heads, fixed) + at, out)
  tl.store(
    _vector(sums_ptr, head, heads, fixed) + query,
    top * fixed.static.unit + tl.log2(total),
  )


@triton.jit
def flash_dq(sight, inputs, others, dq_ptr, fixed: constexpr):
  """Gradient of a block of queries, from the blocks of keys that it sees.

  Invariant: `dq` is the sum over the keys met so far of dlogit x key, where
  dlogit = weight x (dout . value - delta), and delta = dout . out. Weights are
  made again from scores and their kept sum, never stored. With two keys of
  weights 1/4 and 3/4 and dout . value 8 and 0, delta is 2 and the two dlogits
  are 1/4 x 6 = 1.5 and 3/4 x -2 = -1.5: they always add up to 0.
  """
  head = tl.program_id(1)
  heads: tl.constexpr = fixed.k * fixed.g
  low_ptr, high_ptr, sight = _own(sight, fixed)
  q_ptr, k_ptr, v_ptr = inputs
  dout_ptr, sums_ptr, delta_ptr = others
  first = tl.program_id(0) * fixed.queries
  at = places(0, first, fixed.queries, heads * fixed.h, fixed.h)
  q = tl.load(_head(q_ptr, head, heads, fixed) + at)
  dout = tl.load(_head(dout_ptr, head, heads, fixed) + at)
  k_ptr = _head(k_ptr, head // fixed.g, fixed.k, fixed)
  v_ptr = _head(v_ptr, head // fixed.g, fixed.k, fixed)
  query = first + tl.arange(0, fixed.queries)
  sums = tl.load(_vector(sums_ptr, head, heads, fixed) + query)
  delta = tl.load(_vector(delta_ptr, head, heads, fixed) + query)
  dq = zeros(fixed.queries, fixed.h)
  for run in range(_RUNS):
    for j in range(tl.load(low_ptr + run), tl.load(high_ptr + run)):
      key = j * fixed.keys + tl.arange(0, fixed.keys)
      seen = _sees(sight, query[:, None], key[None, :], fixed)
      k_at = places(0, j * fixed.keys, fixed.keys, fixed.k * fixed.h, fixed.h)
      k, v = tl.load(k_ptr + k_at), tl.load(v_ptr + k_at)
      score, slope = _scores(q, k, seen, fixed)
      weight = tl.exp2(score * fixed.static.unit - sums[:, None])
      change = weight * (tl.dot(dout, v.T) - delta[:, None]) * slope
      dq = tl.dot(change.to(k.dtype), k, dq)
  dq = (dq * fixed.static.scale).to(q.dtype)
  tl.store(_head(dq_ptr, head, heads, fixed) + at, dq)


@triton.jit
def flash_dkv(sight, inputs, others, dk_ptr, dv_ptr, fixed: constexpr):
  """Gradients of a block of keys and values, from the queries that see it.

  Invariant: over the heads and blocks of queries met so far, `dv` is the sum of
  weight x dout and `dk` that of dlogit x query. In the module's drawing, keys
  block 1 (a a) meets the blocks of queries 1 and 2: from its own place to that
  of the last a; block 0, the prefix, meets all.
  """
  heads: tl.constexpr = fixed.k * fixed.g
  low_ptr, high_ptr, sight = _own(sight, fixed)
  q_ptr, k_ptr, v_ptr = inputs
  dout_ptr, sums_ptr, delta_ptr = others
  first = tl.program_id(0) * fixed.keys
  at = places(0, first, fixed.keys, fixed.k * fixed.h, fixed.h)
  k = tl.load(_head(k_ptr, tl.program_id(1), fixed.k, fixed) + at)
  v = tl.load(_head(v_ptr, tl.program_id(1), fixed.k, fixed) + at)
  key = first + tl.arange(0, fixed.keys)
  dk = zeros(fixed.keys, fixed.h)
  dv = zeros(fixed.keys, fixed.h)
  for g in range(fixed.g):
    head = tl.program_id(1) * fixed.g + g
    for run in range(_RUNS):
      for i in range(tl.load(low_ptr + run), tl.load(high_ptr + run)):
        query = i * fixed.queries + tl.arange(0, fixed.queries)
        # Keys are rows here: weights then need not be turned.
        seen = _sees(sight, query[None, :], key[:, None], fixed)
        q_at = places(
          0, i * fixed.queries, fixed.queries, heads * fixed.h, fixed.h
        )
        q = tl.load(_head(q_ptr, head, heads, fixed) + q_at)
        dout = tl.load(_head(dout_ptr, head, heads, fixed) + q_at)
        sums = tl.load(_vector(sums_ptr, head, heads, fixed) + query)
        delta = tl.load(_vector(delta_ptr, head, heads, fixed) + query)
        score, slope = _scores(k, q, seen, fixed)
        weight = tl.exp2(score * fixed.static.unit - sums[None, :])
        dv = tl.dot(weight.to(dout.dtype), dout, dv)
        change = weight * (tl.dot(v, dout.T) - delta[None, :]) * slope
        dk = tl.dot(change.to(q.dtype), q, dk)
  dk_ptr = _head(dk_ptr, tl.program_id(1), fixed.k, fixed)
  dv_ptr = _head(dv_ptr, tl.program_id(1), fixed.k, fixed)
  tl.store(dk_ptr + at, (dk * fixed.static.scale).to(k.dtype))
  tl.store(dv_ptr + at, dv.to(v.dtype))


@triton.jit
def _own(sight, fixed: constexpr):
  """Returns where this program's runs begin, and what is known of its row."""
  low_ptr, high_ptr, ends_ptr, positions_ptr = sight
  row = tl.program_id(2)
  runs = (row * tl.num_programs(0) + tl.program_id(0)) * _RUNS
  row *= fixed.t
  return low_ptr + runs, high_ptr + runs, (ends_ptr + row, positions_ptr + row)


@triton.jit
def _head(x_ptr, head, heads: constexpr, fixed: constexpr):
  """Returns where a head of this program's row begins, its tokens far apart."""
  token = tl.program_id(2).to(tl.int64) * fixed.t
  return x_ptr + (token * heads + head) * fixed.h


@triton.jit
def _vector(x_ptr, head, heads: constexpr, fixed: constexpr):
  """As `_head`, of an array of one number a token, x_BKGT."""
  return x_ptr + (tl.program_id(2) * heads + head) * fixed.t


@triton.jit
def _sees(sight, query, key, fixed: constexpr):
  """Returns whether each sees each, where one are rows, the other columns."""
  ends_ptr, positions_ptr = sight
  seen = (key <= query) & (query < tl.load(ends_ptr + key))
  if fixed.static.window > 0:
    ahead = tl.load(positions_ptr + query) - tl.load(positions_ptr + key)
    seen = seen & (ahead < fixed.static.window)
  return seen


@triton.jit
def _scores(a, b, seen, fixed: constexpr):
  """Returns scores of rows with rows, and how logits change with products.

  A score times `static.unit` is a logit in units of log 2.
  """
  product = tl.dot(a, b.T)
  if fixed.static.cap > 0:
    squashed = squash(product, fixed.static.cap / fixed.static.scale)
    score, slope = squashed, 1 - squashed * squashed
  else:
    score, slope = product, 1.0
  return tl.where(seen, score, NEVER), slope
