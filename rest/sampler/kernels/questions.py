"""The kernel over the questions: two of a slot, read by the slot's rows."""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from rest.sampler.kernels import softmax
from rest.sampler.kernels.options import Options, block, block_of, tile_for
from rest.sampler.kernels.softmax import MeanPart, Ref, Running
from rest.sampler.table import BUFFERS, LayerCache, Where


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

  spec = functools.partial(block, 'MKQ')
  part = pl.pallas_call(
    functools.partial(
      _kernel,
      tile=tile,
      keys=block_of(s, blocks.question_keys),
      options=options,
    ),
    grid=(pl.cdiv(m, tile), k, q),
    in_specs=[
      *[spec('Q.', None, BUFFERS)] * 2,
      *[spec('Q.', None, r)] * 2,
      spec('QK..', r, None, g, h),
      spec('Q.K..', None, BUFFERS, None, h, s),
      spec('Q.K..', None, BUFFERS, None, s, h),
    ],
    out_specs=[
      spec('KQM.', None, None, tile, h),
      *[spec('KQM', None, None, tile)] * 2,
    ],
    out_shape=softmax.part_shapes(q_BKGH.dtype, k, q, m, h),
    compiler_params=plgpu.CompilerParams(
      num_warps=blocks.question_warps, num_stages=blocks.question_stages
    ),
    interpret=options.interpret,
    name='question_attention',
  )(
    where.question_QE * is_used_QE,
    where.question_QE,
    where.buffer_QR,
    where.drawn_QR,
    q_BKGH,
    cache.k1_QEKHS,
    cache.v1_QEKSH,
  )
  return MeanPart._make(x.reshape(1, k, b * g, *x.shape[3:]) for x in part)


def _kernel(
  used_ref: Ref,
  question_ref: Ref,
  buffer_ref: Ref,
  drawn_ref: Ref,
  q_ref: Ref,
  k_ref: Ref,
  v_ref: Ref,
  out_ref: Ref,
  max_ref: Ref,
  sum_ref: Ref,
  *,
  tile: int,
  keys: int,
  options: Options,
) -> None:
  """Runs over both questions of a slot.

  Invariant: a query sees the keys of its own question, in order. Example:
  questions of 3 and 5 tokens, blocks of 4 keys, of which all rows answer the
  second: `used` is (0, 5), and blocks 0 and 1 of it are read.
  """
  q_MH, row_M, is_query_M = softmax.load_queries(q_ref, tile)
  buffer_M = plgpu.load(buffer_ref.at[row_M], mask=is_query_M, other=0)
  drawn_M = plgpu.load(drawn_ref.at[row_M], mask=is_query_M, other=0)
  own_M = jnp.where(buffer_M > 0, question_ref[1], question_ref[0])
  state = softmax.begin(*q_MH.shape)
  for e in range(BUFFERS):

    def read(i: jax.Array, state: Running, e: int = e) -> Running:
      at, key_S = pl.ds(i * keys, keys), i * keys + jnp.arange(keys)
      seen_MS = (key_S < used_ref[e])[None] & (buffer_M == e)[:, None]
      if options.window:
        ahead_MS = (own_M + drawn_M)[:, None] - key_S[None]
        seen_MS &= ahead_MS < options.window
      return softmax.grow(
        state, q_MH, k_ref[e, :, at], v_ref[e, at, :], seen_MS, options.cap
      )

    state = jax.lax.fori_loop(0, pl.cdiv(used_ref[e], keys), read, state)
  softmax.store(state, is_query_M, out_ref, max_ref, sum_ref)
