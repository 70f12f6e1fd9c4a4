"""Attention of packed rows in plain XLA: the reference for `rest.model.flash`.

Masked, a chunk of queries at a time so that scores stay small. The M-step runs
it wherever the kernels do not.
"""

import jax
import jax.numpy as jnp

from rest.model.transformer import Attend, ModelConfig, attention, causal_mask

# Queries whose scores are held at once.
_QUERIES = 512


def plain_attention(
  config: ModelConfig, segments_BT: jax.Array, positions_BT: jax.Array
) -> Attend:
  """Returns the attention of packed rows, for `backbone`.

  Args:
    config: The model's shape.
    segments_BT: Segment of each position; 0 is padding.
    positions_BT: Position of each token within its segment.
  """
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


def query_chunk(length: int) -> int:
  """Returns how many queries' scores are held at once."""
  return length if length % _QUERIES else _QUERIES


def _chunks(x_BT):
  rows, length, *rest = x_BT.shape
  x = x_BT.reshape(rows, length // _QUERIES, _QUERIES, *rest)
  return jnp.moveaxis(x, 1, 0)
