"""The programs that fill a table: with its prefix, and with questions.

Each shard of the devices prefills the prefix for itself, and the questions of
its own slots. So no device talks to another, but those that share heads: on
slices of several hosts some TPUs cannot, among the chips of one host alone.
"""

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from rest.model.attention import attention
from rest.model.transformer import Transformer, backbone
from rest.sampler.refill import fill
from rest.sampler.table import ROWS, SPECS, LayerCache, Load, Table, table_specs

_LEVELS = PartitionSpec(ROWS, 'tensor')  # Of keys and values by prompt.


def load_prefix(
  model: Transformer, table: Table, tokens_XT: jax.Array, length: jax.Array
) -> Table:
  """Returns the table with the prefix at level 0.

  Args:
    model: Unstacked.
    table: Donated.
    tokens_XT: The same prefix for each shard.
    length: Tokens of it.
  """
  length_X = jnp.broadcast_to(length, tokens_XT.shape[:1])
  levels = _prefill(model, tokens_XT, length_X, None, jnp.int32(0))
  specs = LayerCache._make(SPECS)
  put = jax.shard_map(
    _put_prefix, in_specs=(specs, _LEVELS), out_specs=specs, check_vma=False
  )
  return table._replace(caches=list(map(put, table.caches, levels)))


def load_questions(
  model: Transformer, table: Table, load: Load, prefix: jax.Array
) -> Table:
  """Returns the table with the load's questions at level 1."""
  levels = _prefill(model, load.tokens_XT, load.length_X, table.caches, prefix)
  specs = table_specs(len(table.caches))
  return jax.shard_map(
    fill,
    in_specs=(specs, PartitionSpec(ROWS), _LEVELS),
    out_specs=specs,
    check_vma=False,
  )(table, load, levels)


def _put_prefix(
  cache: LayerCache, level: tuple[jax.Array, jax.Array]
) -> LayerCache:
  """Returns a layer's cache on one device, with the prefix that it has read."""
  k_XKHT, v_XKTH = level  # X is 1 here.
  return cache._replace(
    k0_KHS=k_XKHT[0].astype(cache.k0_KHS.dtype),
    v0_KSH=v_XKTH[0].astype(cache.v0_KSH.dtype),
  )


def _prefill(
  model: Transformer,
  tokens_XT: jax.Array,
  length_X: jax.Array,
  caches: list[LayerCache] | None,
  prefix: jax.Array,
) -> list[tuple[jax.Array, jax.Array]]:
  """Returns keys and values by layer, k_XKHT and v_XKTH, behind the prefix.

  Invariant: a token sees the filled part of the prefix and what is before it in
  its own prompt. Example: behind a prefix of 13 in its room of 32, token 2 of a
  question is at position 15 and sees 13 + 3 of the S = 32 + T keys.

  Args:
    model: Unstacked.
    tokens_XT: Of the prompts, padded.
    length_X: Tokens of each.
    caches: By layer, for their level 0; None where the prefix itself is read.
    prefix: Tokens that lie before.
  """
  config = model.config
  batch, width = tokens_XT.shape
  own_XT = jnp.broadcast_to(jnp.arange(width)[None], (batch, width))
  position_XT = prefix + own_XT
  has_XT = own_XT < length_X[:, None]

  def attend(
    q_XTKGH: jax.Array,
    k_XTKH: jax.Array,
    v_XTKH: jax.Array,
    window: int,
    cache: LayerCache | None,
  ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    k_XSKH, v_XSKH = k_XTKH, v_XTKH
    position_XS, has_XS = position_XT, has_XT
    if cache is not None and (s := cache.v0_KSH.shape[1]):
      k0_SKH = jnp.moveaxis(cache.k0_KHS, 2, 0)
      v0_SKH = jnp.swapaxes(cache.v0_KSH, 0, 1)
      k_XSKH = jnp.concatenate([_all(k0_SKH, batch), k_XTKH], axis=1)
      v_XSKH = jnp.concatenate([_all(v0_SKH, batch), v_XTKH], axis=1)
      first_XS = jnp.broadcast_to(jnp.arange(s)[None], (batch, s))
      position_XS = jnp.concatenate([first_XS, position_XT], axis=1)
      has_XS = jnp.concatenate([first_XS < prefix, has_XT], axis=1)
    ahead_XTS = position_XT[:, :, None] - position_XS[:, None]
    seen_XTS = has_XS[:, None] & (ahead_XTS >= 0)
    if window:
      seen_XTS &= ahead_XTS < window
    out_XTKGH = attention(config, q_XTKGH, k_XSKH, v_XSKH, seen_XTS)
    k_XKHT, v_XKTH = jnp.moveaxis(k_XTKH, 1, 3), jnp.swapaxes(v_XTKH, 1, 2)
    return out_XTKGH, (k_XKHT, v_XKTH)

  _, levels = backbone(model, tokens_XT, position_XT, attend, caches)
  return levels


def _all(x_SKH: jax.Array, batch: int) -> jax.Array:
  """Returns x_XSKH: the same for all prompts."""
  return jnp.broadcast_to(x_SKH[None], (batch, *x_SKH.shape))
