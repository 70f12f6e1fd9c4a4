"""The kernels of decoding attention, from inside (see `launch.py`).

A running softmax is a triple: sums of values, not normalised, the largest logit
and the sum of weights relative to it, all in float32.
"""

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from rest.model.transformer import softcap
from rest.sampler.table import BUFFERS

_NEVER = -1e30  # The logit of a key that must not be seen.


def attend_prefix(
  prefix_ref,
  position_ref,
  q_ref,
  k_ref,
  v_ref,
  out_ref,
  max_ref,
  sum_ref,
  *,
  tile,
  window,
  cap,
  keys,
  parts,
):
  q, row, is_query = _queries(q_ref, tile)
  position = plgpu.load(position_ref.at[row], mask=is_query, other=0)
  prefix, part = prefix_ref[0], pl.program_id(2)

  def block(i, state):
    start = (i * parts + part) * keys
    at, key = pl.ds(start, keys), start + jnp.arange(keys)
    seen = (key < prefix)[None]
    if window:
      seen &= (position[:, None] - key[None]) < window
    return _grow(state, q, k_ref[:, at], v_ref[at, :], seen, cap)

  # Parts take blocks by turns.
  count = pl.cdiv(pl.cdiv(prefix, keys) - part, parts)
  state = jax.lax.fori_loop(0, count, block, _begin(*q.shape))
  _store(state, is_query, out_ref, max_ref, sum_ref)


def attend_question(
  length_ref,
  question_ref,
  buffer_ref,
  drawn_ref,
  q_ref,
  k_ref,
  v_ref,
  out_ref,
  max_ref,
  sum_ref,
  *,
  tile,
  window,
  cap,
  keys,
):
  q, row, is_query = _queries(q_ref, tile)
  buffer = plgpu.load(buffer_ref.at[row], mask=is_query, other=0)
  drawn = plgpu.load(drawn_ref.at[row], mask=is_query, other=0)
  mine = jnp.where(buffer > 0, question_ref[1], question_ref[0])
  state = _begin(*q.shape)
  for e in range(BUFFERS):

    def block(i, state, e=e):
      at, key = pl.ds(i * keys, keys), i * keys + jnp.arange(keys)
      seen = (key < length_ref[e])[None] & (buffer == e)[:, None]
      if window:
        seen &= ((mine + drawn)[:, None] - key[None]) < window
      return _grow(state, q, k_ref[e, :, at], v_ref[e, at, :], seen, cap)

    state = jax.lax.fori_loop(0, pl.cdiv(length_ref[e], keys), block, state)
  _store(state, is_query, out_ref, max_ref, sum_ref)


def attend_suffix(
  drawn_ref, q_ref, new_k_ref, new_v_ref, *refs, rows, window, cap, keys
):
  *found, k_ref, v_ref, out_ref, grown_k_ref, grown_v_ref = refs
  tile, width = q_ref.shape
  is_row = jnp.arange(tile) < rows
  mask = is_row[:, None]
  q = plgpu.load(q_ref.at[:, :], mask=mask, other=0.0)
  state = _begin(tile, width)
  for at in range(0, len(found), 3):
    parts_ref, max_ref, sum_ref = found[at : at + 3]
    for n in map(jnp.int32, range(parts_ref.shape[0])):
      part = (
        plgpu.load(parts_ref.at[n], mask=mask, other=0.0),
        plgpu.load(max_ref.at[n], mask=is_row, other=_NEVER),
        plgpu.load(sum_ref.at[n], mask=is_row, other=0.0),
      )
      state = _merge(state, part)
  drawn = drawn_ref[0]

  def block(i, state):
    at, key = pl.ds(i * keys, keys), i * keys + jnp.arange(keys)
    has = key < drawn  # The rest is not even read.
    k_SH = plgpu.load(k_ref.at[at, :], mask=has[:, None], other=0.0)
    v_SH = plgpu.load(v_ref.at[at, :], mask=has[:, None], other=0.0)
    seen = has & ((drawn - key) < window) if window else has
    return _grow(state, q, k_SH.T, v_SH, seen[None], cap)

  state = jax.lax.fori_loop(0, pl.cdiv(drawn, keys), block, state)
  # The newest key is not read back: it goes from registers into the sum.
  new_k, new_v = new_k_ref[:], new_v_ref[:]
  logit = (q.astype(jnp.float32) * new_k.astype(jnp.float32)[None]).sum(axis=1)
  one = jnp.ones_like(logit)
  part = (jnp.broadcast_to(new_v[None], q.shape), softcap(logit, cap), one)
  out, _, total = _merge(state, part)
  out = out / total[:, None]
  plgpu.store(out_ref.at[:, :], out.astype(out_ref.dtype), mask=mask)
  grown_k_ref[pl.ds(drawn, 1), :] = new_k[None]
  grown_v_ref[pl.ds(drawn, 1), :] = new_v[None]


def _queries(q_ref, tile):
  """Returns a program's queries, of which rows they are, and if they exist.

  Args:
    q_ref: [rows, G, H]; a program takes `tile` of its rows * G queries.
    tile: How many.
  """
  rows, groups, width = q_ref.shape
  query = pl.program_id(0) * tile + jnp.arange(tile)
  row, is_query = query // groups, query < rows * groups
  at = (row[:, None], (query % groups)[:, None], jnp.arange(width)[None])
  q = plgpu.load(q_ref.at[at], mask=is_query[:, None], other=0.0)
  return q, row, is_query


def _begin(tile, width):
  return (
    jnp.zeros((tile, width), jnp.float32),
    jnp.full((tile,), _NEVER, jnp.float32),
    jnp.zeros((tile,), jnp.float32),
  )


def _grow(state, q, k_HS, v_SH, seen, cap):
  """Adds a block of keys to a running softmax."""
  out, top, total = state
  logits = softcap(jnp.dot(q, k_HS, preferred_element_type=jnp.float32), cap)
  logits = jnp.where(seen, logits, _NEVER)
  above = jnp.maximum(top, logits.max(axis=1))
  weights = jnp.exp(logits - above[:, None])
  share = jnp.exp(top - above)
  out = out * share[:, None] + jnp.dot(
    weights.astype(v_SH.dtype), v_SH, preferred_element_type=jnp.float32
  )
  return out, above, total * share + weights.sum(axis=1)


def _merge(state, part):
  """Adds what another softmax has come to."""
  out, top, total = state
  more, other, weight = part
  above = jnp.maximum(top, other)
  share, gain = jnp.exp(top - above), weight * jnp.exp(other - above)
  out = out * share[:, None] + more.astype(jnp.float32) * gain[:, None]
  return out, above, total * share + gain


def _store(state, is_query, out_ref, max_ref, sum_ref):
  out, top, total = state
  mask = is_query[:, None]
  mean = out / jnp.where(total > 0, total, 1.0)[:, None]  # There may be no key.
  plgpu.store(out_ref.at[:, :], mean.astype(out_ref.dtype), mask=mask)
  plgpu.store(max_ref.at[:], top, mask=is_query)
  plgpu.store(sum_ref.at[:], total, mask=is_query)
