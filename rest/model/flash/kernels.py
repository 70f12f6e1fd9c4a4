"""The three kernels: forward, gradient of queries, of keys and values.

FlashAttention-2 (Dao, arXiv:2307.08691). Logits are in units of log 2, and a
query's sum of weights is kept as its logarithm. What a query sees is a span of
keys, from a first one to itself.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

# A logit that must not be seen, and the least that can be: far enough above
# that where nothing is seen all weights are 0, not equal.
_NEVER = -1e30
_LEAST = -1e20
_LOG2_E = math.log2(math.e)


class Cut(NamedTuple):
  """How a kernel is cut.

  Attributes:
    queries: In a block; a power of two, 16 or more.
    keys: In a block, likewise.
    warps: That work on it.
    stages: Blocks that are loaded while one is worked on.
  """

  queries: int
  keys: int
  warps: int
  stages: int


class Blocks(NamedTuple):
  """How the three kernels are cut.

  Attributes:
    forward: A program has a block of queries, and meets blocks of keys.
    dq: Gradient of queries, likewise.
    dkv: Gradients of keys and values: a program has a block of keys.
  """

  forward: Cut = Cut(queries=128, keys=64, warps=8, stages=3)
  dq: Cut = Cut(queries=128, keys=64, warps=8, stages=2)
  dkv: Cut = Cut(queries=64, keys=128, warps=8, stages=2)


BLOCKS = Blocks()
# Half of the queries and keys where each is twice as wide.
WIDE = Blocks(
  *(
    cut._replace(queries=cut.queries // 2, keys=cut.keys // 2) for cut in BLOCKS
  )
)


class Static(NamedTuple):
  """What the kernels are compiled for.

  Attributes:
    scale: Multiplies queries.
    cap: Soft-cap of the logits; 0 is off.
    blocks: How they are cut.
    interpret: Runs without a GPU, for tests.
  """

  scale: float
  cap: float
  blocks: Blocks
  interpret: bool


def forward(
  static: Static,
  q_BTKGH: jax.Array,
  k_BTKH: jax.Array,
  v_BTKH: jax.Array,
  first_BT: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """Returns out_BTKGH, and sums_BKGT: log2 of the sums of weights.

  Args:
    static: Compiled in.
    q_BTKGH: Queries, not scaled.
    k_BTKH: Keys.
    v_BTKH: Values.
    first_BT: First key that each query sees; the length if it sees none.
  """
  b, t, k, g, _ = q_BTKGH.shape
  queries, keys = _sizes(static.blocks.forward, t)
  block, vector, whole = _query_specs(q_BTKGH.shape, queries)
  return pl.pallas_call(
    functools.partial(_forward_kernel, static, keys),
    grid=(t // queries, k * g, b),
    in_specs=[*_first_specs(queries), block, whole, whole],
    out_specs=[block, vector],
    out_shape=[
      jax.ShapeDtypeStruct(q_BTKGH.shape, q_BTKGH.dtype),
      jax.ShapeDtypeStruct((b, k, g, t), jnp.float32),
    ],
    name='flash_forward',
    **_options(static, static.blocks.forward),
  )(_first_block(first_BT, queries, keys), first_BT, q_BTKGH, k_BTKH, v_BTKH)


def _forward_kernel(static, keys, *refs):
  low_ref, first_ref, q_ref, k_ref, v_ref, out_ref, sums_ref = refs
  queries, width = q_ref.shape
  first, q = first_ref[:], q_ref[:, :]
  start = pl.program_id(0) * queries
  query = start + jnp.arange(queries)

  def block(j, state):
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
  out, top, total = jax.lax.fori_loop(low_ref[0], high, block, state)
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
  *rest: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Returns dq_BTKGH, dk_BTKH and dv_BTKH.

  Args:
    static: Compiled in.
    q_BTKGH: Queries, not scaled.
    k_BTKH: Keys.
    v_BTKH: Values.
    first_BT: As in `forward`.
    end_BT: End of the queries that see each key; 0 if none do.
    *rest: dout_BTKGH, sums_BKGT of `forward`, and delta_BKGT, the products of
      dout with what came out.
  """
  inputs = q_BTKGH, k_BTKH, v_BTKH, *rest
  dq_BTKGH = _backward_queries(static, first_BT, *inputs)
  return dq_BTKGH, *_backward_keys(static, first_BT, end_BT, *inputs)


def _backward_queries(static, first_BT, q_BTKGH, *rest):
  b, t, k, g, _ = q_BTKGH.shape
  queries, keys = _sizes(static.blocks.dq, t)
  block, vector, whole = _query_specs(q_BTKGH.shape, queries)
  specs = block, whole, whole, block, vector, vector
  return pl.pallas_call(
    functools.partial(_dq_kernel, static, keys),
    grid=(t // queries, k * g, b),
    in_specs=[*_first_specs(queries), *specs],
    out_specs=block,
    out_shape=jax.ShapeDtypeStruct(q_BTKGH.shape, q_BTKGH.dtype),
    name='flash_dq',
    **_options(static, static.blocks.dq),
  )(_first_block(first_BT, queries, keys), first_BT, q_BTKGH, *rest)


def _dq_kernel(static, keys, *refs):
  low_ref, first_ref, q_ref, k_ref, v_ref, *refs = refs
  dout_ref, sums_ref, delta_ref, dq_ref = refs
  queries, width = q_ref.shape
  first, q, dout = first_ref[:], q_ref[:, :], dout_ref[:, :]
  sums, delta = sums_ref[:], delta_ref[:]
  start = pl.program_id(0) * queries
  query = start + jnp.arange(queries)

  def block(j, dq):
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
  dq = jax.lax.fori_loop(low_ref[0], high, block, dq)
  dq_ref[:, :] = (dq * static.scale).astype(dq_ref.dtype)


def _backward_keys(static, first_BT, end_BT, q_BTKGH, k_BTKH, v_BTKH, *rest):
  b, t, k, g, h = q_BTKGH.shape
  queries, keys = _sizes(static.blocks.dkv, t)
  # A row of all heads that share a key, and a block of keys.
  first = pl.BlockSpec((None, t), lambda i, j, n: (n, 0))
  heads = pl.BlockSpec((None, t, None, g, h), lambda i, j, n: (n, 0, j, 0, 0))
  vectors = pl.BlockSpec((None, None, g, t), lambda i, j, n: (n, j, 0, 0))
  block = pl.BlockSpec((None, keys, None, h), lambda i, j, n: (n, i, j, 0))
  high_BI = pl.cdiv(end_BT.reshape(b, -1, keys).max(axis=-1), queries)
  high = pl.BlockSpec((None, 1), lambda i, j, n: (n, i))
  return pl.pallas_call(
    functools.partial(_dkv_kernel, static, queries),
    grid=(t // keys, k, b),
    in_specs=[high, first, heads, block, block, heads, vectors, vectors],
    out_specs=[block, block],
    out_shape=[
      jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (k_BTKH, v_BTKH)
    ],
    name='flash_dkv',
    **_options(static, static.blocks.dkv),
  )(high_BI, first_BT, q_BTKGH, k_BTKH, v_BTKH, *rest)


def _dkv_kernel(static, queries, *refs):
  high_ref, first_ref, q_ref, k_ref, v_ref, *refs = refs
  dout_ref, sums_ref, delta_ref, dk_ref, dv_ref = refs
  keys, width = k_ref.shape
  k, v = k_ref[:, :], v_ref[:, :]
  start = pl.program_id(0) * keys
  key = start + jnp.arange(keys)

  def head(g, state):
    def block(i, state):
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

    return jax.lax.fori_loop(start // queries, high_ref[0], block, state)

  zeros = jnp.zeros((keys, width), jnp.float32)
  dk, dv = jax.lax.fori_loop(0, q_ref.shape[1], head, (zeros, zeros))
  dk_ref[:, :] = (dk * static.scale).astype(dk_ref.dtype)
  dv_ref[:, :] = dv.astype(dv_ref.dtype)


def _sees(first, query, key):
  return (key >= first) & (key <= query)


def _logits(a, b, seen, static):
  """Returns logits in units of log 2, and how they change with products."""
  products = _dot_t(a, b)
  if not static.cap:
    return jnp.where(seen, products * (static.scale * _LOG2_E), _NEVER), 1.0
  squashed = jnp.tanh(products * (static.scale / static.cap))
  logits = jnp.where(seen, squashed * (static.cap * _LOG2_E), _NEVER)
  return logits, 1.0 - squashed * squashed


def _dot(a, b):
  return jnp.dot(a, b, preferred_element_type=jnp.float32)


def _dot_t(a, b):
  """Returns the products of rows with rows."""
  return jax.lax.dot_general(
    a, b, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32
  )


def _first_block(first_BT, queries, keys):
  """Returns the first block of keys that each block of queries sees."""
  rows = first_BT.shape[0]
  return first_BT.reshape(rows, -1, queries).min(axis=-1) // keys


def _first_specs(queries):
  """Returns specs of the first block of keys, and of each query's first key."""
  return [
    pl.BlockSpec((None, size), lambda i, j, n: (n, i)) for size in (1, queries)
  ]


def _query_specs(shape, queries):
  """Returns specs of a block of queries, of a number for each, of all keys."""
  _, t, _, g, h = shape
  block = pl.BlockSpec(
    (None, queries, None, None, h), lambda i, j, n: (n, i, j // g, j % g, 0)
  )
  vector = pl.BlockSpec(
    (None, None, None, queries), lambda i, j, n: (n, j // g, j % g, i)
  )
  whole = pl.BlockSpec((None, t, None, h), lambda i, j, n: (n, 0, j // g, 0))
  return block, vector, whole


def _options(static, cut):
  params = plgpu.CompilerParams(num_warps=cut.warps, num_stages=cut.stages)
  return {'compiler_params': params, 'interpret': static.interpret}


def _sizes(cut: Cut, length: int) -> tuple[int, int]:
  """Returns queries and keys of a block: powers of two that divide a row."""
  most = length & -length
  return min(cut.queries, most), min(cut.keys, most)
