"""The kernels as one function with a gradient, on a mesh, for `backbone`.

A key's end says who sees it, and which blocks need not be met. Heads share keys
and values as they are.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from rest.model.attention import KEPT
from rest.model.flash import kernels
from rest.model.flash.blocks import BLOCKS, WIDE, Blocks, Static
from rest.model.sharding import on_mesh
from rest.model.transformer import Attend, ModelConfig, query_scale


class _Residuals(NamedTuple):
  """What the backward pass needs of the forward pass."""

  q_BTKGH: jax.Array
  k_BTKH: jax.Array
  v_BTKH: jax.Array
  ends_BT: jax.Array
  positions_BT: jax.Array
  out_BTKGH: jax.Array
  sums_BKGT: jax.Array


def flash_attention(
  config: ModelConfig,
  ends_BT: jax.Array,
  positions_BT: jax.Array,
  blocks: Blocks | None = None,
) -> Attend:
  """Returns the attention of packed rows, for `backbone`.

  Under `jax.set_mesh`, rows are shared out over data and fsdp, heads over
  tensor; no device needs anything of another.

  Args:
    config: The model's shape.
    ends_BT: End of the run of tokens, from itself on, that see this one; 0 for
      padding, whose output and gradients are 0.
    positions_BT: Position of each token along its own path.
    blocks: How the kernels are cut.
  """
  if blocks is None:
    blocks = WIDE if config.head_width > 128 else BLOCKS
  scale, cap = query_scale(config), config.attention_softcap

  def attend(
    q_BTKGH: jax.Array,
    k_BTKH: jax.Array,
    v_BTKH: jax.Array,
    window: int,
    cache: None,
  ) -> tuple[jax.Array, None]:
    del cache
    static = Static(scale, cap, window, blocks)
    return _attention(
      static, q_BTKGH, k_BTKH, v_BTKH, ends_BT, positions_BT
    ), None

  return attend


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attention(
  static: Static,
  q_BTKGH: jax.Array,
  k_BTKH: jax.Array,
  v_BTKH: jax.Array,
  ends_BT: jax.Array,
  positions_BT: jax.Array,
) -> jax.Array:
  return _forward(static, q_BTKGH, k_BTKH, v_BTKH, ends_BT, positions_BT)[0]


def _forward(
  static: Static,
  q_BTKGH: jax.Array,
  k_BTKH: jax.Array,
  v_BTKH: jax.Array,
  ends_BT: jax.Array,
  positions_BT: jax.Array,
) -> tuple[jax.Array, _Residuals]:
  run = on_mesh(
    functools.partial(kernels.forward, static),
    ('q_BTKGH', 'k_BTKH', 'v_BTKH', 'ends_BT', 'positions_BT'),
    ('out_BTKGH', 'sums_BKGT'),
  )
  out_BTKGH, sums_BKGT = (
    checkpoint_name(x, name)
    for x, name in zip(
      run(q_BTKGH, k_BTKH, v_BTKH, ends_BT, positions_BT), KEPT, strict=True
    )
  )
  return out_BTKGH, _Residuals(
    q_BTKGH, k_BTKH, v_BTKH, ends_BT, positions_BT, out_BTKGH, sums_BKGT
  )


def _backward(
  static: Static, kept: _Residuals, dout_BTKGH: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, None, None]:
  """Returns the gradients of queries, keys and values, and no others."""
  delta_BTKG = jnp.sum(
    dout_BTKGH.astype(jnp.float32) * kept.out_BTKGH.astype(jnp.float32),
    axis=-1,
  )
  run = on_mesh(
    functools.partial(kernels.backward, static),
    (
      *('q_BTKGH', 'k_BTKH', 'v_BTKH', 'ends_BT', 'positions_BT'),
      *('dout_BTKGH', 'sums_BKGT', 'delta_BKGT'),
    ),
    ('dq_BTKGH', 'dk_BTKH', 'dv_BTKH'),
  )
  delta_BKGT = jnp.moveaxis(delta_BTKG, 1, 3)
  gradients = run(*kept[:5], dout_BTKGH, kept.sums_BKGT, delta_BKGT)
  return *gradients, None, None


_attention.defvjp(_forward, _backward)
