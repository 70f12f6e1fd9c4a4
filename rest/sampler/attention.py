"""Attention of one new token a row over three levels of keys and values.

Each level gives a part: an unnormalised sum, the largest logit and the sum of
weights. Parts merge by log-sum-exp, to what one long cache would give.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from rest.model.transformer import Attend, ModelConfig, query_scale, softcap
from rest.sampler.table import (
  ROWS,
  SPECS,
  LayerCache,
  Where,
  has_kernels,
  pick,
  positions_last,
)

_NEVER = -1e30  # The logit of a key that must not be seen.


class Part(NamedTuple):
  """Attention over some of the keys, in float32; sums are not normalised."""

  out_BKGH: jax.Array
  max_BKG: jax.Array
  sum_BKG: jax.Array


def three_levels(
  config: ModelConfig, where: Where, read: int, mesh: Mesh
) -> Attend:
  """Returns the `Attend` of a decoding step; aux is the cache, grown by one.

  Invariant: no device needs anything of another. Example: 8 rows and K = 2 on a
  mesh of data 2 and tensor 2 are 4 rows and one key head on each device.

  Args:
    config: The model's shape.
    where: Where each row's query stands.
    read: Keys of the suffix that are read; no row has more.
    mesh: Rows are shared out over data, heads over tensor.
  """
  runs_kernels, is_last = has_kernels(config, mesh), positions_last(mesh)

  def attend(
    q_BTKGH: jax.Array,
    k_BTKH: jax.Array,
    v_BTKH: jax.Array,
    window: int,
    cache: LayerCache,
  ) -> tuple[jax.Array, LayerCache]:
    by_row = PartitionSpec(ROWS)
    by_head = PartitionSpec(ROWS, None, 'tensor')
    suffix = PartitionSpec(ROWS, 'tensor')
    in_where = Where._make([PartitionSpec(), *[by_row] * 3])
    local = jax.shard_map(
      functools.partial(
        decode_attention, config, read, window, runs_kernels, is_last
      ),
      mesh=mesh,
      in_specs=(*[by_head] * 3, LayerCache._make(SPECS), in_where),
      out_specs=(by_head, (suffix, suffix)),
      check_vma=False,
    )
    out_BTKGH, (k2, v2_BKSH) = local(q_BTKGH, k_BTKH, v_BTKH, cache, where)
    return out_BTKGH, cache._replace(k2=k2, v2_BKSH=v2_BKSH)

  return attend


def decode_attention(
  config: ModelConfig,
  read: int,
  window: int,
  runs_kernels: bool,
  is_last: bool,
  q_BTKGH: jax.Array,
  k_BTKH: jax.Array,
  v_BTKH: jax.Array,
  cache: LayerCache,
  where: Where,
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
  """Returns attention on one device, and the suffix's grown keys and values.

  Invariant: a query sees the prefix, its own question less the last token, and
  its suffix up to itself, each key once. Example: a prefix of 13, a question of
  6 and 2 tokens drawn before: 13 keys of level 0, 5 of level 1 and, with the
  question's last token and the query's own, 3 of level 2.

  Args:
    config: The model's shape.
    read: As in `three_levels`.
    window: How far back attention reaches; 0 is everything.
    runs_kernels: Whether our kernels run, or plain XLA.
    is_last: Whether keys of the suffix lie as `table.positions_last` says.
    q_BTKGH: Rotated queries, one a row (T is 1).
    k_BTKH: Their keys.
    v_BTKH: Their values.
    cache: The layer's.
    where: Where each of the device's rows stands.
  """
  q_BKGH = (q_BTKGH[:, 0] * query_scale(config)).astype(cache.v2_BKSH.dtype)
  cap = config.attention_softcap
  if runs_kernels:
    from rest.sampler import kernels  # They need what few devices have.

    out_BKGH, k2_BKSH, v2_BKSH = kernels.attend(
      *(q_BKGH, k_BTKH[:, 0], v_BTKH[:, 0], cache, where),
      kernels.Options(window, cap),
    )
    return out_BKGH[:, None], (k2_BKSH, v2_BKSH)
  drawn_B = where.drawn_QR.reshape(-1)
  v2_BKSH = _append(cache.v2_BKSH, v_BTKH[:, 0], drawn_B)
  if is_last:
    k2 = _append_last(cache.k2, k_BTKH[:, 0], drawn_B)
    k_BKHS = k2[..., :read]
  else:
    k2 = _append(cache.k2, k_BTKH[:, 0], drawn_B)
    k_BKHS = jnp.swapaxes(k2[:, :, :read], 2, 3)
  parts: list[Part] = []
  if cache.v0_KSH.shape[1]:
    parts.append(_prefix(q_BKGH, cache, where, window, cap))
  if cache.v1_QEKSH.shape[3]:
    parts.append(_questions(q_BKGH, cache, where, window, cap))
  v_BKSH = v2_BKSH[:, :, :read]
  parts.append(_suffix(q_BKGH, k_BKHS, v_BKSH, where, window, cap))
  out_BKGH = merge(parts).astype(q_BTKGH.dtype)
  return out_BKGH[:, None], (k2, v2_BKSH)


def read_for(longest: int, suffix: int, config: ModelConfig, mesh: Mesh) -> int:
  """Returns how many keys of the suffix a program reads, one of `reads`.

  Args:
    longest: Keys of the fullest row.
    suffix: Keys that there is room for.
    config: The model's shape.
    mesh: Of the devices.
  """
  sizes = reads(suffix, has_kernels(config, mesh))
  return next(size for size in sizes if size >= min(longest, suffix))


def reads(suffix: int, runs_kernels: bool) -> list[int]:
  """Returns the lengths that programs are compiled to read of a suffix.

  The kernels read what is filled and no more: there, one program serves all.
  Elsewhere a part of the cache is copied before it is read (on a CPU at three
  times the cost of reading it), so that small parts alone are worth it: of
  2048, they are 128, 256, 512 and all.
  """
  lengths: list[int] = []
  while not runs_kernels and 4 * (part := 128 << len(lengths)) <= suffix:
    lengths.append(part)
  return [*lengths, suffix]


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


def _append(
  cache_BKSH: jax.Array, new_BKH: jax.Array, drawn_B: jax.Array
) -> jax.Array:
  """Returns the cache with one more key (or value) in each row.

  All keys of all rows are one table, to which TPUs write at once; to a table a
  row they write one row after the other. (A row that is at work has room; one
  that is idle has drawn nothing, and nothing reads its first key.)
  """
  b, k, s, h = cache_BKSH.shape
  first_BK = jnp.arange(b * k).reshape(b, k) * s
  place_BK = first_BK + drawn_B[:, None]
  cache_NH = cache_BKSH.reshape(-1, h)
  cache_NH = cache_NH.at[place_BK.reshape(-1)].set(
    new_BKH.reshape(-1, h).astype(cache_NH.dtype),
    mode='promise_in_bounds',
    unique_indices=True,
    indices_are_sorted=True,
  )
  return cache_NH.reshape(cache_BKSH.shape)


def _append_last(
  cache_BKHS: jax.Array, new_BKH: jax.Array, drawn_B: jax.Array
) -> jax.Array:
  """Does what `_append` does where positions lie last."""

  def one(cache: jax.Array, new: jax.Array, drawn: jax.Array) -> jax.Array:
    new = new[..., None].astype(cache.dtype)
    return jax.lax.dynamic_update_slice_in_dim(cache, new, drawn, axis=2)

  return jax.vmap(one)(cache_BKHS, new_BKH, drawn_B)


def _prefix(
  q_BKGH: jax.Array, cache: LayerCache, where: Where, window: int, cap: float
) -> Part:
  """One matrix product for all rows: [K, M, H] x [K, H, S], M being B * G."""
  b, k, g, h = q_BKGH.shape
  q_KMH = jnp.swapaxes(q_BKGH, 0, 1).reshape(k, b * g, h)
  key_S = jnp.arange(cache.v0_KSH.shape[1])
  seen_BS = jnp.broadcast_to((key_S < where.prefix)[None], (b, key_S.size))
  if window:
    seen_BS &= (_position(where)[:, None] - key_S[None]) < window
  seen_KMS = jnp.repeat(seen_BS, g, axis=0)[None]
  part = _part(q_KMH, cache.k0_KHS, cache.v0_KSH, seen_KMS, cap)

  def by_row(x_KM: jax.Array) -> jax.Array:
    return jnp.swapaxes(x_KM.reshape(k, b, g, *x_KM.shape[2:]), 0, 1)

  return Part._make(map(by_row, part))


def _questions(
  q_BKGH: jax.Array, cache: LayerCache, where: Where, window: int, cap: float
) -> Part:
  """One product for each buffer's question with all rows of its slot.

  The buffers stay apart, and each row takes its own: its bits must not depend
  on the buffer that its question lies in.

  Invariant: a row takes nothing from the other buffer's product. Example: Q = 4
  slots, E = 2 and R = 8 with G = 3 are 8 products a key head, each of 24
  queries; of 48 results a slot, 24 are taken.
  """
  b, k, g, h = q_BKGH.shape
  q, r = where.buffer_QR.shape
  e = cache.v1_QEKSH.shape[1]
  q_QKMH = jnp.swapaxes(q_BKGH.reshape(q, r, k, g, h), 1, 2)
  q_QEKMH = jnp.broadcast_to(
    q_QKMH.reshape(q, 1, k, r * g, h), (q, e, k, r * g, h)
  )
  key_S = jnp.arange(cache.v1_QEKSH.shape[3])[None, None, None]
  own_QER = where.buffer_QR[:, None] == jnp.arange(e)[None, :, None]
  seen_QERS = own_QER[..., None] & (key_S < where.question_QE[:, :, None, None])
  if window:
    position_QR = _position(where).reshape(q, r)
    ahead_QERS = position_QR[:, None, :, None] - where.prefix - key_S
    seen_QERS &= ahead_QERS < window
  seen_QEKMS = jnp.repeat(seen_QERS, g, axis=2)[:, :, None]
  part = _part(q_QEKMH, cache.k1_QEKHS, cache.v1_QEKSH, seen_QEKMS, cap)

  def by_row(x_QEKM: jax.Array) -> jax.Array:
    axes = x_QEKM.shape[4:]
    x_QEKRG = x_QEKM.reshape(q, e, k, r, g, *axes)
    x_EQRKG = jnp.moveaxis(x_QEKRG, (1, 3), (0, 2))
    x_EBKG = x_EQRKG.reshape(e, b, k, g, *axes)
    second_B = where.buffer_QR.reshape(b, *[1] * (x_EBKG.ndim - 2)) > 0
    return jnp.where(second_B, x_EBKG[1], x_EBKG[0])

  return Part._make(map(by_row, part))


def _suffix(
  q_BKGH: jax.Array,
  k_BKHS: jax.Array,
  v_BKSH: jax.Array,
  where: Where,
  window: int,
  cap: float,
) -> Part:
  """Each row with its own keys, the newest included."""
  drawn_B1 = where.drawn_QR.reshape(-1, 1)
  key_S = jnp.arange(v_BKSH.shape[2])[None]
  seen_BS = key_S <= drawn_B1
  if window:
    seen_BS &= (drawn_B1 - key_S) < window
  return _part(q_BKGH, k_BKHS, v_BKSH, seen_BS[:, None, None], cap)


def _position(where: Where) -> jax.Array:
  """Returns position_B, of each query in its sequence."""
  question_QR = pick(where.question_QE, where.buffer_QR)
  return (where.prefix + question_QR + where.drawn_QR).reshape(-1)


def _part(
  q_MH: jax.Array,
  k_HS: jax.Array,
  v_SH: jax.Array,
  seen_MS: jax.Array,
  cap: float,
) -> Part:
  """Returns a part; the axes before those named are those of a batch."""
  logit_MS = softcap(
    jnp.einsum(
      '...MH,...HS->...MS', q_MH, k_HS, preferred_element_type=jnp.float32
    ),
    cap,
  )
  logit_MS = jnp.where(seen_MS, logit_MS, _NEVER)
  max_M = logit_MS.max(axis=-1)
  weight_MS = jnp.exp(logit_MS - max_M[..., None])
  out_MH = jnp.einsum(
    '...MS,...SH->...MH',
    weight_MS.astype(v_SH.dtype),
    v_SH,
    preferred_element_type=jnp.float32,
  )
  return Part(out_MH, max_M, weight_MS.sum(axis=-1))
