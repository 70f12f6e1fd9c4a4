"""Attention in plain XLA: the reference for all kernels.

Of packed rows, which the M-step trains on wherever no kernel runs, it holds the
scores of a chunk of queries at a time.
"""

import math
from typing import Literal

import jax
import jax.numpy as jnp

from rest.model import sharding
from rest.model.hardware import runs_kernels
from rest.model.transformer import Attend, ModelConfig, query_scale, softcap

# Most queries whose scores are held at once; a power of two.
_QUERIES = 512
_FEWEST = 64

# What a kernel's forward pass gives and its backward pass needs, for remat
# policies.
KEPT = ('attention_out_BTKGH', 'attention_sums_BKGT')


def attention(
  config: ModelConfig,
  q_BTKGH: jax.Array,
  k_BSKH: jax.Array,
  v_BSKH: jax.Array,
  mask_BTS: jax.Array,
) -> jax.Array:
  """Returns masked attention, out_BTKGH.

  Rows whose mask is all False give the mean of the values, not NaN.
  """
  logits_BKGTS = jnp.einsum(
    'BTKGH,BSKH->BKGTS',
    q_BTKGH * query_scale(config),
    k_BSKH,
    preferred_element_type=jnp.float32,
  )
  logits_BKGTS = softcap(logits_BKGTS, config.attention_softcap)
  logits_BKGTS = jnp.where(mask_BTS[:, None, None], logits_BKGTS, -1e30)
  weights_BKGTS = jax.nn.softmax(logits_BKGTS, axis=-1).astype(v_BSKH.dtype)
  return jnp.einsum('BKGTS,BSKH->BTKGH', weights_BKGTS, v_BSKH)


def kernel_for(
  config: ModelConfig, length: int, platform: str, shares: bool
) -> Literal['flash', 'splash', None]:
  """Returns which kernel packed rows of a length meet; None: plain attention.

  Args:
    config: The model's shape.
    length: Of a row, which must come in tiles too.
    platform: JAX's name for the devices' family.
    shares: Whether sequences of a row may share prefixes. JAX's own kernel for
      TPUs knows sequences only: there a sixth of the positions and plain
      attention are taken for it.
  """
  if platform == 'tpu' and length % 128 == 0 and not shares:
    return 'splash'
  runs = runs_kernels(platform, config.dtype, config.head_width)
  if runs and config.head_width <= 256 and length % 64 == 0:
    return 'flash'
  return None


def packed_attention(
  config: ModelConfig,
  ends_BT: jax.Array,
  positions_BT: jax.Array,
  shares: bool,
) -> Attend:
  """Returns the quickest attention of packed rows, for `backbone`.

  Args:
    config: The model's shape.
    ends_BT: As in `plain_attention`.
    positions_BT: Likewise.
    shares: Whether sequences of a row may share prefixes.
  """
  kernel = kernel_for(config, ends_BT.shape[1], sharding.platform(), shares)
  # Kernels are imported where they run, and nowhere else has to have them.
  if kernel == 'splash':
    from rest.model.splash import splash_attention

    return splash_attention(config, ends_BT)  # Each sequence has its own end.
  if kernel == 'flash':
    from rest.model.flash import flash_attention

    return flash_attention(config, ends_BT, positions_BT)
  return plain_attention(config, ends_BT, positions_BT)


def plain_attention(
  config: ModelConfig, ends_BT: jax.Array, positions_BT: jax.Array
) -> Attend:
  """Returns the attention of packed rows, for `backbone`.

  Chunks of queries change no bit: a query's scores are its own. A row of 2,048
  is worked on in 4 chunks, each with scores of [512, 2048] a head.

  Args:
    config: The model's shape.
    ends_BT: End of the run of tokens, from itself on, that see this one; 0 for
      padding (see `rest.m_step.packing`).
    positions_BT: Position of each token along its own path.
  """
  length = ends_BT.shape[1]
  queries = query_chunk(length)

  def attend(
    q_BTKGH: jax.Array,
    k_BTKH: jax.Array,
    v_BTKH: jax.Array,
    window: int,
    cache: None,
  ) -> tuple[jax.Array, None]:
    del cache
    mask_BTS = forest_mask(ends_BT, positions_BT, window)
    if queries == length:
      return attention(config, q_BTKGH, k_BTKH, v_BTKH, mask_BTS), None

    # A chunk's scores are made again in the backward pass, never kept.
    @jax.checkpoint
    def attend_chunk(chunk: list[jax.Array]) -> jax.Array:
      q_BTKGH, mask_BTS = chunk
      return attention(config, q_BTKGH, k_BTKH, v_BTKH, mask_BTS)

    out = jax.lax.map(
      attend_chunk, [_chunks(x, queries) for x in (q_BTKGH, mask_BTS)]
    )
    return jnp.moveaxis(out, 0, 1).reshape(q_BTKGH.shape), None

  return attend


def forest_mask(
  ends_BT: jax.Array, positions_BT: jax.Array, window: int
) -> jax.Array:
  """Returns mask_BTS: on its own path, not later, within the window.

  Args:
    ends_BT: As in `plain_attention`.
    positions_BT: Likewise.
    window: How far back attention reaches along the path, itself included; 0 is
      everything.
  """
  place_T = jnp.arange(ends_BT.shape[1])
  query_1T1, key_11S = place_T[None, :, None], place_T[None, None]
  seen_BTS = (key_11S <= query_1T1) & (query_1T1 < ends_BT[:, None])
  ahead_BTS = positions_BT[:, :, None] - positions_BT[:, None]
  return seen_BTS & (ahead_BTS < window) if window else seen_BTS


def query_chunk(length: int) -> int:
  """Returns how many queries' scores are held at once: they divide a row."""
  common = math.gcd(length, _QUERIES)
  return common if common >= _FEWEST else length


def _chunks(x_BT: jax.Array, size: int) -> jax.Array:
  """Returns chunks of T in front: [B, T, ...] to [T / size, B, size, ...]."""
  batch, length, *others = x_BT.shape
  x = x_BT.reshape(batch, length // size, size, *others)
  return jnp.moveaxis(x, 1, 0)
