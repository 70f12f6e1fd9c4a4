"""Attention in plain XLA: the reference for all kernels.

Of packed rows, which the M-step trains on wherever no kernel runs, it holds the
scores of a chunk of queries at a time.
"""

from typing import Literal

import jax
import jax.numpy as jnp

from rest.model import sharding
from rest.model.hardware import runs_kernels
from rest.model.transformer import Attend, ModelConfig, query_scale, softcap

# Queries whose scores are held at once.
_QUERIES = 512

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
  config: ModelConfig, length: int, platform: str
) -> Literal['flash', 'splash', None]:
  """Returns which kernel packed rows of a length meet; None: plain attention.

  Args:
    config: The model's shape.
    length: Of a row, which must come in tiles too.
    platform: JAX's name for the devices' family.
  """
  if platform == 'tpu' and length % 128 == 0:
    return 'splash'
  runs = runs_kernels(platform, config.dtype, config.head_width)
  if runs and config.head_width <= 256 and length % 64 == 0:
    return 'flash'
  return None


def packed_attention(
  config: ModelConfig, segments_BT: jax.Array, positions_BT: jax.Array
) -> Attend:
  """Returns the quickest attention of packed rows, for `backbone`.

  Args:
    config: The model's shape.
    segments_BT: Segment of each position, in runs; 0 is padding.
    positions_BT: Position of each token within its segment.
  """
  kernel = kernel_for(config, segments_BT.shape[1], sharding.platform())
  # Kernels are imported where they run, and nowhere else has to have them.
  if kernel == 'splash':
    from rest.model.splash import splash_attention

    return splash_attention(config, segments_BT)
  if kernel == 'flash':
    from rest.model.flash import flash_attention

    return flash_attention(config, segments_BT)
  return plain_attention(config, segments_BT, positions_BT)


def plain_attention(
  config: ModelConfig, segments_BT: jax.Array, positions_BT: jax.Array
) -> Attend:
  """Returns the attention of packed rows, for `backbone`.

  Chunks of queries change no bit: a query's scores are its own. A row of 2,048
  is worked on in 4 chunks, each with scores of [512, 2048] a head.

  Args:
    config: The model's shape.
    segments_BT: Segment of each position; 0 is padding.
    positions_BT: Position of each token within its segment.
  """
  length = segments_BT.shape[1]

  def attend(
    q_BTKGH: jax.Array,
    k_BTKH: jax.Array,
    v_BTKH: jax.Array,
    window: int,
    cache: None,
  ) -> tuple[jax.Array, None]:
    del cache
    mask_BTS = causal_mask(segments_BT, positions_BT, window)
    if query_chunk(length) == length:
      return attention(config, q_BTKGH, k_BTKH, v_BTKH, mask_BTS), None

    # A chunk's scores are made again in the backward pass, never kept.
    @jax.checkpoint
    def attend_chunk(chunk: tuple[jax.Array, jax.Array]) -> jax.Array:
      q_BTKGH, mask_BTS = chunk
      return attention(config, q_BTKGH, k_BTKH, v_BTKH, mask_BTS)

    out = jax.lax.map(attend_chunk, (_chunks(q_BTKGH), _chunks(mask_BTS)))
    return jnp.moveaxis(out, 0, 1).reshape(q_BTKGH.shape), None

  return attend


def causal_mask(
  segments_BT: jax.Array, positions_BT: jax.Array, window: int
) -> jax.Array:
  """Returns mask_BTS: same segment, not later, within the window.

  Args:
    segments_BT: Sequence number of each token in a packed row; 0 is padding.
    positions_BT: Position of each token within its sequence.
    window: How far back attention reaches, itself included; 0 is everything.
  """
  ahead_BTS = positions_BT[:, :, None] - positions_BT[:, None, :]
  same_BTS = segments_BT[:, :, None] == segments_BT[:, None, :]
  seen_BTS = same_BTS & (ahead_BTS >= 0)
  return seen_BTS & (ahead_BTS < window) if window else seen_BTS


def query_chunk(length: int) -> int:
  """Returns how many queries' scores are held at once."""
  return length if length % _QUERIES else _QUERIES


def _chunks(x_BT: jax.Array) -> jax.Array:
  """Returns chunks of T in front: [B, T, ...] to [T / 512, B, 512, ...]."""
  batch, length, *others = x_BT.shape
  x = x_BT.reshape(batch, length // _QUERIES, _QUERIES, *others)
  return jnp.moveaxis(x, 1, 0)
