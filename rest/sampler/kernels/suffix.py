"""The kernel over each row's suffix, which ends what the other two began."""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from rest.model.transformer import softcap
from rest.sampler.kernels import softmax
from rest.sampler.kernels.options import Options, block, block_of, tile_for
from rest.sampler.kernels.softmax import MeanPart, Ref, Running
from rest.sampler.table import LayerCache, Where


def attend_suffix(
  q_BKGH: jax.Array,
  newest: tuple[jax.Array, jax.Array],
  parts: list[MeanPart],
  cache: LayerCache,
  where: Where,
  options: Options,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Returns attention over all keys, and the suffix grown in place.

  Invariant: a program owns one row and one head: nobody else writes its suffix.
  Example: B = 24 rows and K = 2 make 48 programs, each with G = 3 queries in a
  tile of 16. Inputs 0 to 3 are the queries and what is new; a prefix in 4 parts
  and the questions come as 6 more arrays; inputs 10 and 11, the suffix, are
  outputs 1 and 2.
  """
  b, k, g, h = q_BKGH.shape
  s, blocks = cache.v2_BKSH.shape[2], options.blocks

  spec = functools.partial(block, 'BK')
  queries = spec('BK..', None, None, tile_for(g), h)
  new, keys = spec('BK.', None, None, h), spec('BK..', None, None, s, h)
  found: list[jax.Array] = []
  found_specs: list[pl.BlockSpec] = []
  for part in parts:
    a = part.sum_AKM.shape[0]
    found += [x.reshape(a, k, b, g, *x.shape[3:]) for x in part]
    one = (a, None, None, tile_for(g))
    found_specs += [spec('.KB..', *one, h), *[spec('.KB.', *one)] * 2]
  last = 4 + len(found)
  out_BKGH, k2_BKSH, v2_BKSH = pl.pallas_call(
    functools.partial(
      _kernel,
      groups=g,
      keys=block_of(s, blocks.suffix_keys),
      options=options,
    ),
    grid=(b, k),
    in_specs=[spec('B', 1), queries, new, new, *found_specs, keys, keys],
    out_specs=[queries, keys, keys],
    out_shape=[
      jax.ShapeDtypeStruct((b, k, g, h), q_BKGH.dtype),
      jax.ShapeDtypeStruct(cache.k2.shape, cache.k2.dtype),
      jax.ShapeDtypeStruct(cache.v2_BKSH.shape, cache.v2_BKSH.dtype),
    ],
    input_output_aliases={last: 1, last + 1: 2},
    compiler_params=plgpu.CompilerParams(
      num_warps=blocks.suffix_warps, num_stages=blocks.suffix_stages
    ),
    interpret=options.interpret,
    name='suffix_attention',
  )(
    where.drawn_QR.reshape(-1), q_BKGH, *newest, *found, cache.k2, cache.v2_BKSH
  )
  return out_BKGH, k2_BKSH, v2_BKSH


def _kernel(
  drawn_ref: Ref,
  q_ref: Ref,
  new_k_ref: Ref,
  new_v_ref: Ref,
  *refs: Ref,
  groups: int,
  keys: int,
  options: Options,
) -> None:
  """Merges the parts, runs over what is filled, and adds the newest key.

  Invariant: of the suffix, keys before `drawn` are read and the one at `drawn`
  is written. Example: drawn 5, blocks of 4 keys: two blocks, of which the keys
  0 to 4 are read; the query's own key, number 5, comes from registers.
  """
  *found, k_ref, v_ref, out_ref, grown_k_ref, grown_v_ref = refs
  tile, width = q_ref.shape
  is_query_M = jnp.arange(tile) < groups
  mask_M1 = is_query_M[:, None]
  q_MH = plgpu.load(q_ref.at[:, :], mask=mask_M1, other=0.0)
  state = _found(found, is_query_M, mask_M1, softmax.begin(tile, width))
  drawn = drawn_ref[0]

  def read(i: jax.Array, state: Running) -> Running:
    at, key_S = pl.ds(i * keys, keys), i * keys + jnp.arange(keys)
    has_S = key_S < drawn  # The rest is not even read.
    k_SH = plgpu.load(k_ref.at[at, :], mask=has_S[:, None], other=0.0)
    v_SH = plgpu.load(v_ref.at[at, :], mask=has_S[:, None], other=0.0)
    seen_S = has_S
    if options.window:
      seen_S &= (drawn - key_S) < options.window
    return softmax.grow(state, q_MH, k_SH.T, v_SH, seen_S[None], options.cap)

  state = jax.lax.fori_loop(0, pl.cdiv(drawn, keys), read, state)
  # The newest key is not read back: it goes from registers into the sum.
  new_k_H, new_v_H = new_k_ref[:], new_v_ref[:]
  product_MH = q_MH.astype(jnp.float32) * new_k_H.astype(jnp.float32)[None]
  logit_M = product_MH.sum(axis=1)
  one_M = jnp.ones_like(logit_M)
  own_MH = jnp.broadcast_to(new_v_H[None], q_MH.shape)
  own = Running(own_MH, softcap(logit_M, options.cap), one_M)
  state = softmax.merge(state, own)
  out_MH = state.out_MH / state.sum_M[:, None]
  plgpu.store(out_ref.at[:, :], out_MH.astype(out_ref.dtype), mask=mask_M1)
  grown_k_ref[pl.ds(drawn, 1), :] = new_k_H[None]
  grown_v_ref[pl.ds(drawn, 1), :] = new_v_H[None]


def _found(
  refs: list[Ref], is_query_M: jax.Array, mask_M1: jax.Array, state: Running
) -> Running:
  """Adds what other kernels have found, three arrays each, A parts of it."""
  for at in range(0, len(refs), 3):
    out_ref, max_ref, sum_ref = refs[at : at + 3]
    for a in map(jnp.int32, range(out_ref.shape[0])):
      part = Running(
        plgpu.load(out_ref.at[a], mask=mask_M1, other=0.0),
        plgpu.load(max_ref.at[a], mask=is_query_M, other=softmax.NEVER),
        plgpu.load(sum_ref.at[a], mask=is_query_M, other=0.0),
      )
      state = softmax.merge(state, part)
  return state
