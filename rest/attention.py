"""Attention of the M-step: packed rows, forward and backward.

Masked attention in plain XLA, a chunk of queries at a time so that scores stay
small; and, for NVIDIA GPUs from Hopper on in 16 bits, cuDNN's flash attention
with the segments' offsets, once it is known to be right (`allow_cudnn`).
"""

from typing import Any

import jax
import jax.numpy as jnp

from rest.model import (
  Attend,
  ModelConfig,
  attention,
  causal_mask,
  query_scale,
)
from rest.packing import most_segments

# cuDNN's gradients of packed rows were wrong with shared keys and values; since
# these are repeated, they have not been compared with plain attention on a GPU
# (bench/NOTES.md). Until `python -m bench.training --check` has passed there,
# it is used only by that program: slower is better than silently wrong.
allow_cudnn = False

# Queries whose scores are held at once on the plain path.
_QUERIES = 512


def packed_attention(
  config: ModelConfig, segments_BT: jax.Array, positions_BT: jax.Array
) -> Attend:
  """Returns the attention of packed rows, for `backbone`.

  Args:
    config: The model's shape.
    segments_BT: Segment of each position, in runs; 0 is padding.
    positions_BT: Position of each token within its segment.
  """
  length = segments_BT.shape[1]
  windows = {w if 0 < w < length else 0 for w in config.layer_windows}
  if allow_cudnn and len(windows) == 1 and _has_cudnn(config):
    return _cudnn(config, segments_BT, windows.pop())
  return _plain(config, segments_BT, positions_BT)


def saves_flash(primitive: Any, *_: Any, **__: Any) -> bool:
  """A remat policy: keeps what cuDNN's forward pass gave, its output and sums.

  Policies that keep matrix products do not know it as one.
  """
  return 'dot_product_attention_fwd' in primitive.name


def query_chunk(length: int) -> int:
  """Returns how many queries' scores are held at once on the plain path."""
  return length if length % _QUERIES else _QUERIES


def _plain(config, segments_BT, positions_BT):
  length = segments_BT.shape[1]

  def attend(q_BTKGH, k_BTKH, v_BTKH, window, cache):
    del cache
    mask_BTS = causal_mask(segments_BT, positions_BT, window)
    if query_chunk(length) == length:
      return attention(config, q_BTKGH, k_BTKH, v_BTKH, mask_BTS), None

    # A chunk's scores are made again in the backward pass, never kept.
    @jax.checkpoint
    def chunk(x):
      q_BTKGH, mask_BTS = x
      return attention(config, q_BTKGH, k_BTKH, v_BTKH, mask_BTS)

    out = jax.lax.map(chunk, (_chunks(q_BTKGH), _chunks(mask_BTS)))
    return jnp.moveaxis(out, 0, 1).reshape(q_BTKGH.shape), None

  return attend


def _chunks(x_BT):
  rows, length, *rest = x_BT.shape
  x = x_BT.reshape(rows, length // _QUERIES, _QUERIES, *rest)
  return jnp.moveaxis(x, 1, 0)


def _has_cudnn(config: ModelConfig) -> bool:
  device = jax.devices()[0]
  return (
    device.platform == 'gpu'
    and 'cuda' in device.client.platform_version
    and float(device.compute_capability) >= 9.0
    and config.dtype in ('bfloat16', 'float16')
    and config.head_width % 8 == 0
    and config.head_width <= 256
    and not config.attention_softcap
  )


def _cudnn(config, segments_BT, window):
  # `jax.nn.dot_product_attention` has no segments; the function that it calls
  # has, under this private name, from JAX 0.5 to 0.12 at least.
  from jax._src.cudnn import fused_attention_stablehlo as cudnn

  starts_BM, lengths_BM = runs(segments_BT)

  def attend(q_BTKGH, k_BTKH, v_BTKH, _, cache):
    del cache
    rows, length, *_, width = q_BTKGH.shape
    # Keys and values once for every query head. Packed attention with shared
    # ones is not safe: JAX before #39521 reads them at the wrong offsets, and
    # cuDNN's backward pass sums what lay in its workspace into their gradients
    # (NVIDIA/TransformerEngine#2448).
    k_BTKGH, v_BTKGH = (
      jnp.broadcast_to(x[:, :, :, None], q_BTKGH.shape)
      for x in (k_BTKH, v_BTKH)
    )
    q_BTNH, k_BTNH, v_BTNH = (
      x.reshape(rows, length, -1, width) for x in (q_BTKGH, k_BTKGH, v_BTKGH)
    )
    out_BTNH = cudnn.dot_product_attention(
      q_BTNH,
      k_BTNH,
      v_BTNH,
      q_seqlen=lengths_BM,
      kv_seqlen=lengths_BM,
      q_offsets=starts_BM,
      kv_offsets=starts_BM,
      scale=query_scale(config),
      mask_type=cudnn.MaskType.PADDING_CAUSAL,
      sliding_window_length=window or None,
    )
    # Typed as a tuple: some calls return sums too.
    return jnp.reshape(out_BTNH, q_BTKGH.shape), None  # pyright: ignore

  return attend


def runs(segments_BT: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Returns where each run of one segment starts and how long it is.

  Padding is a run too: positions outside all runs would be left unwritten,
  and whatever lay in that memory would reach the gradients.

  Returns:
    starts_BM, with one entry more than there can be runs, and lengths_BM, both
    int32 and -1 where there are fewer.
  """
  length = segments_BT.shape[1]
  most = min(length, most_segments(length) + 1)
  changed_BT = segments_BT[:, 1:] != segments_BT[:, :-1]
  is_start_BT = jnp.pad(changed_BT, ((0, 0), (1, 0)), constant_values=True)
  place_BT = jnp.where(is_start_BT, jnp.arange(length)[None], length)
  starts_BM = jnp.sort(place_BT, axis=1)[:, :most]
  starts_BM = jnp.pad(starts_BM, ((0, 0), (0, 1)), constant_values=length)
  lengths_BM = starts_BM[:, 1:] - starts_BM[:, :-1]
  lengths_BM = jnp.where(lengths_BM > 0, lengths_BM, -1)
  starts_BM = jnp.where(starts_BM < length, starts_BM, -1)
  return starts_BM.astype(jnp.int32), lengths_BM.astype(jnp.int32)
