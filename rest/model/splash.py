"""Attention of packed rows on TPUs: JAX's own splash attention.

`rest.model.attention` is the reference. It skips the blocks of keys that are
later than all queries of a block, and those behind the window; not those of
other segments.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu import splash_attention as splash

from rest.model.attention import KEPT
from rest.model.sharding import on_mesh
from rest.model.transformer import Attend, ModelConfig, query_scale

_MOST = 512  # Queries and keys of a block: what fills a matrix unit, and fits.


def splash_attention(
  config: ModelConfig, segments_BT: jax.Array, interpret: bool = False
) -> Attend:
  """Returns the attention of packed rows, for `backbone`.

  Under `jax.set_mesh`, rows are shared out over data and fsdp, heads over
  tensor; no device needs anything of another.

  Args:
    config: The model's shape.
    segments_BT: Segment of each position, in runs; 0 is padding, which sees
      padding. A row is a multiple of 128 long.
    interpret: Runs without a TPU, for tests.
  """

  def attend(
    q_BTKGH: jax.Array,
    k_BTKH: jax.Array,
    v_BTKH: jax.Array,
    window: int,
    cache: None,
  ) -> tuple[jax.Array, None]:
    del cache
    run = on_mesh(
      functools.partial(_run, config.attention_softcap, window, interpret),
      ('q_BTKGH', 'k_BTKH', 'v_BTKH', 'segments_BT'),
      ('out_BTKGH',),
    )
    q_BTKGH *= query_scale(config)
    return run(q_BTKGH, k_BTKH, v_BTKH, segments_BT)[0], None

  return attend


def _run(
  softcap: float,
  window: int,
  interpret: bool,
  q_BTKGH: jax.Array,
  k_BTKH: jax.Array,
  v_BTKH: jax.Array,
  segments_BT: jax.Array,
) -> tuple[jax.Array]:
  """Returns out_BTKGH of the rows and heads of one device.

  Invariant: segments are runs of a row, and positions count up within them, so
  that places in the row tell what is later and what is behind the window.
  Example: the second segment of a row, at places 3 to 6, has positions 0 to 3;
  with a window of 2 the query at 6 sees 5 and 6, as position 3 sees 2 and 3.
  """
  batch, length, k, g, h = q_BTKGH.shape
  shape = (length, length)
  mask = (
    splash.LocalMask(shape, (window - 1, 0), 0)
    if window
    else splash.CausalMask(shape)
  )
  kernel = splash.make_splash_mha(
    splash.MultiHeadMask([mask] * (k * g)),
    block_sizes=_blocks(length),
    attn_logits_soft_cap=softcap or None,
    head_shards=1,
    q_seq_shards=1,
    residual_checkpoint_name=KEPT[0],
    interpret=interpret,
  )
  q_BTNH = q_BTKGH.reshape(batch, length, k * g, h)
  q_BNTH, k_BKTH, v_BKTH = (
    jnp.swapaxes(x, 1, 2) for x in (q_BTNH, k_BTKH, v_BTKH)
  )
  out_BNTH: Any = jax.vmap(kernel)(
    q_BNTH, k_BKTH, v_BKTH, splash.SegmentIds(segments_BT, segments_BT)
  )
  return (jnp.swapaxes(out_BNTH, 1, 2).reshape(q_BTKGH.shape),)


def _blocks(length: int) -> splash.BlockSizes:
  """Returns how the kernels are cut: a row of 2,048 into blocks of 512."""
  size = min(_MOST, length & -length)
  return splash.BlockSizes(
    block_q=size,
    block_kv=size,
    block_q_dkv=size,
    block_kv_dkv=size,
    block_q_dq=size,
    block_kv_dq=size,
  )
