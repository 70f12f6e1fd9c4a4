"""Attention of one new token a row over three levels of keys and values.

Each level gives a part: an unnormalised sum, the largest logit and the sum of
weights. Parts merge by log-sum-exp, to what one long cache would give.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from rest.model.transformer import ModelConfig, query_scale, softcap
from rest.sampler.kernels import attend
from rest.sampler.table import ROWS, SPECS, LayerCache, has_kernels

_NEVER = -1e30  # The logit of a key that must not be seen.


class Where(NamedTuple):
  """Where each row's query stands.

  Attributes:
    prefix: Tokens of the prefix, a scalar.
    question_QE: Tokens of each buffer's question before its last.
    buffer_QR: Which question each row answers.
    drawn_QR: Entries of the suffix before this one.
  """

  prefix: jax.Array
  question_QE: jax.Array
  buffer_QR: jax.Array
  drawn_QR: jax.Array


class Part(NamedTuple):
  """Attention over some of the keys, in float32; sums are not normalised."""

  out_BKGH: jax.Array
  max_BKG: jax.Array
  sum_BKG: jax.Array


def three_levels(
  config: ModelConfig, where: Where, read: int, mesh: Mesh
) -> Callable[..., tuple[jax.Array, Any]]:
  """Returns the `Attend` of a decoding step; aux is the cache, grown by one.

  Args:
    config: The model's shape.
    where: Where each row stands.
    read: Entries of the suffix that are read; no row has more.
    mesh: Rows are shared out over data, heads over tensor; no device needs
      anything of another.
  """
  runs_kernels = has_kernels(config, mesh)

  def attend(q_BTKGH, k_BTKH, v_BTKH, window, cache):
    rows, heads = P(ROWS), P(ROWS, None, 'tensor')
    suffix = P(ROWS, 'tensor')
    places = Where._make([P(), rows, rows, rows])
    local = jax.shard_map(
      lambda q, k, v, cache, where: decode_attention(
        config, where, read, window, runs_kernels, q, k, v, cache
      ),
      mesh=mesh,
      in_specs=(heads, heads, heads, LayerCache._make(SPECS), places),
      out_specs=(heads, (suffix, suffix)),
      check_vma=False,
    )
    out_BTKGH, (k2, v2) = local(q_BTKGH, k_BTKH, v_BTKH, cache, where)
    return out_BTKGH, cache._replace(k2=k2, v2_BKSH=v2)

  return attend


def decode_attention(
  config: ModelConfig,
  where: Where,
  read: int,
  window: int,
  runs_kernels: bool,
  q_BTKGH: jax.Array,
  k_BTKH: jax.Array,
  v_BTKH: jax.Array,
  cache: LayerCache,
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
  """Returns attention on one device, and the suffix's grown keys and values.

  Args:
    config: The model's shape.
    where: Where each of the device's rows stands.
    read: As in `three_levels`.
    window: How far back attention reaches; 0 is everything.
    runs_kernels: Whether the Pallas kernels run, or plain XLA.
    q_BTKGH: Rotated queries, one a row (T is 1).
    k_BTKH: Their keys.
    v_BTKH: Their values.
    cache: The layer's.
  """
  q_BKGH = (q_BTKGH[:, 0] * query_scale(config)).astype(cache.v2_BKSH.dtype)
  cap = config.attention_softcap
  if runs_kernels:
    out_BKGH, k2_BKSH, v2_BKSH = attend(
      q_BKGH, k_BTKH[:, 0], v_BTKH[:, 0], cache, where, window, cap
    )
    return out_BKGH[:, None], (k2_BKSH, v2_BKSH)
  drawn_B = where.drawn_QR.reshape(-1)
  k2_BKHS = _append(cache.k2, jnp.moveaxis(k_BTKH, 1, 3), drawn_B, axis=2)
  v2_BKSH = _append(cache.v2_BKSH, jnp.swapaxes(v_BTKH, 1, 2), drawn_B, axis=1)
  parts = []
  if cache.v0_KSH.shape[1]:
    parts.append(_prefix(q_BKGH, cache, where, window, cap))
  if cache.v1_QEKSH.shape[3]:
    parts.append(_questions(q_BKGH, cache, where, window, cap))
  parts.append(
    _suffix(
      q_BKGH, k2_BKHS[..., :read], v2_BKSH[:, :, :read], where, window, cap
    )
  )
  out_BKGH = merge(parts).astype(q_BTKGH.dtype)
  return out_BKGH[:, None], (k2_BKHS, v2_BKSH)


def read_for(
  longest: int, capacity: int, config: ModelConfig, mesh: Mesh
) -> int:
  """Returns how many entries of the suffix a program reads, one of `reads`.

  Args:
    longest: Entries of the fullest row.
    capacity: Entries there are.
    config: The model's shape.
    mesh: Of the devices.
  """
  sizes = reads(capacity, has_kernels(config, mesh))
  return next(size for size in sizes if size >= min(longest, capacity))


def reads(capacity: int, runs_kernels: bool) -> list[int]:
  """Returns the parts of a suffix that programs are compiled to read.

  The kernels read what is filled and no more: there, one program serves all.
  Elsewhere a part of the cache is copied before it is read (on a CPU at three
  times the cost of reading it), so that small parts alone are worth it.
  """
  parts = []
  while not runs_kernels and 4 * (part := 128 << len(parts)) <= capacity:
    parts.append(part)
  return [*parts, capacity]


def merge(parts: list[Part]) -> jax.Array:
  """Returns normalised attention over the keys of all parts, out_BKGH."""
  top_BKG = parts[0].max_BKG
  for part in parts[1:]:
    top_BKG = jnp.maximum(top_BKG, part.max_BKG)
  out_BKGH = jnp.zeros_like(parts[0].out_BKGH)
  sum_BKG = jnp.zeros_like(top_BKG)
  for part in parts:
    share_BKG = jnp.exp(part.max_BKG - top_BKG)
    out_BKGH += part.out_BKGH * share_BKG[..., None]
    sum_BKG += part.sum_BKG * share_BKG
  return out_BKGH / sum_BKG[..., None]


def _append(cache, new, drawn_B, axis):
  def one(cache, new, drawn):
    new = new.astype(cache.dtype)
    return jax.lax.dynamic_update_slice_in_dim(cache, new, drawn, axis)

  return jax.vmap(one)(cache, new, drawn_B)


def _prefix(q_BKGH, cache, where, window, cap):
  """One matrix product for all rows: [K, B*G, H] x [K, H, S]."""
  b, k, g, h = q_BKGH.shape
  q_KMH = jnp.swapaxes(q_BKGH, 0, 1).reshape(k, b * g, h)
  key_S = jnp.arange(cache.v0_KSH.shape[1])
  seen_BS = jnp.broadcast_to((key_S < where.prefix)[None], (b, key_S.size))
  if window:
    seen_BS &= (_position(where)[:, None] - key_S[None]) < window
  seen_KMS = jnp.repeat(seen_BS, g, axis=0)[None]
  part = _part(q_KMH, cache.k0_KHS, cache.v0_KSH, seen_KMS, cap)

  def back(x):
    return jnp.swapaxes(x.reshape(k, b, g, *x.shape[2:]), 0, 1)

  return Part(*(back(x) for x in part))


def _questions(q_BKGH, cache, where, window, cap):
  """One product for each buffer's question with all rows of its slot.

  The buffers stay apart, and each row takes its own: its bits must not depend
  on the buffer that its question lies in.
  """
  b, k, g, h = q_BKGH.shape
  q, r = where.buffer_QR.shape
  buffers = cache.v1_QEKSH.shape[1]
  q_QKMH = jnp.swapaxes(q_BKGH.reshape(q, r, k, g, h), 1, 2)
  q_QEKMH = jnp.broadcast_to(
    q_QKMH.reshape(q, 1, k, r * g, h), (q, buffers, k, r * g, h)
  )
  key_S = jnp.arange(cache.v1_QEKSH.shape[3])[None, None, None]
  mine_QER = where.buffer_QR[:, None] == jnp.arange(buffers)[None, :, None]
  seen_QERS = mine_QER[..., None] & (
    key_S < where.question_QE[:, :, None, None]
  )
  if window:
    position_QR = _position(where).reshape(q, r)
    ahead_QERS = position_QR[:, None, :, None] - where.prefix - key_S
    seen_QERS &= ahead_QERS < window
  seen_QEKMS = jnp.repeat(seen_QERS, g, axis=2)[:, :, None]
  part = _part(q_QEKMH, cache.k1_QEKHS, cache.v1_QEKSH, seen_QEKMS, cap)

  def back(x_QEKM):
    axes = x_QEKM.shape[4:]
    x_QEKRG = x_QEKM.reshape(q, buffers, k, r, g, *axes)
    x_EBKG = jnp.moveaxis(x_QEKRG, (1, 3), (0, 2)).reshape(
      buffers, b, k, g, *axes
    )
    second_B = where.buffer_QR.reshape(b, *[1] * (x_EBKG.ndim - 2)) > 0
    return jnp.where(second_B, x_EBKG[1], x_EBKG[0])

  return Part(*(back(x) for x in part))


def _suffix(q_BKGH, k_BKHS, v_BKSH, where, window, cap):
  drawn_B1 = where.drawn_QR.reshape(-1, 1)
  key_S = jnp.arange(v_BKSH.shape[2])[None]
  seen_BS = key_S <= drawn_B1
  if window:
    seen_BS &= (drawn_B1 - key_S) < window
  return _part(q_BKGH, k_BKHS, v_BKSH, seen_BS[:, None, None], cap)


def _position(where):
  question_QR = jnp.where(
    where.buffer_QR > 0, where.question_QE[:, 1:], where.question_QE[:, :1]
  )
  return (where.prefix + question_QR + where.drawn_QR).reshape(-1)


def _part(q, k, v, seen, cap) -> Part:
  """Returns a part; all but the last two axes are those of a batch."""
  logits = softcap(
    jnp.einsum('...MH,...HS->...MS', q, k, preferred_element_type=jnp.float32),
    cap,
  )
  logits = jnp.where(seen, logits, _NEVER)
  top = logits.max(axis=-1)
  weights = jnp.exp(logits - top[..., None])
  out = jnp.einsum(
    '...MS,...SH->...MH',
    weights.astype(v.dtype),
    v,
    preferred_element_type=jnp.float32,
  )
  return Part(out, top, weights.sum(axis=-1))
