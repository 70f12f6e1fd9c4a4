"""The kernels as one function with a gradient, on a mesh, for `backbone`.

A row's segments are runs, so that two numbers a token say all that is seen, and
which blocks need not be met. Heads share keys and values as they are.
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


class Reach(NamedTuple):
  """What sees what.

  Attributes:
    first_BT: First key that a query sees; it sees all from there to itself.
      The row's length for padding, which sees nothing.
    end_BT: End of the queries that see a key; 0 for padding.
  """

  first_BT: jax.Array
  end_BT: jax.Array


class _Residuals(NamedTuple):
  """What the backward pass needs of the forward pass."""

  q_BTKGH: jax.Array
  k_BTKH: jax.Array
  v_BTKH: jax.Array
  reach: Reach
  out_BTKGH: jax.Array
  sums_BKGT: jax.Array


def flash_attention(
  config: ModelConfig,
  segments_BT: jax.Array,
  blocks: Blocks | None = None,
  interpret: bool = False,
) -> Attend:
  """Returns the attention of packed rows, for `backbone`.

  Under `jax.set_mesh`, rows are shared out over data and fsdp, heads over
  tensor; no device needs anything of another.

  Args:
    config: The model's shape.
    segments_BT: Segment of each position, in runs; 0 is padding, whose output
      and gradients are 0.
    blocks: How the kernels are cut.
    interpret: Runs without a GPU, for tests.
  """
  if blocks is None:
    blocks = WIDE if config.head_width > 128 else BLOCKS
  static = Static(
    query_scale(config), config.attention_softcap, blocks, interpret
  )

  def attend(
    q_BTKGH: jax.Array,
    k_BTKH: jax.Array,
    v_BTKH: jax.Array,
    window: int,
    cache: None,
  ) -> tuple[jax.Array, None]:
    del cache
    reach = find_reach(segments_BT, window)
    return _attention(static, q_BTKGH, k_BTKH, v_BTKH, reach), None

  return attend


def find_reach(segments_BT: jax.Array, window: int) -> Reach:
  """Returns what sees what in packed rows.

  Invariant: a query q sees a key k if and only if first[q] <= k <= q, and if
  and only if k <= q < end[k]. So, where two segments and padding make a row:

    place      0 1 2  3 4 5 6  7
    segment    1 1 1  2 2 2 2  0
    first      0 0 0  3 3 3 3  8    with a window of 2:  0 0 1  3 3 4 5  8
    end        3 3 3  7 7 7 7  0                         2 3 3  5 6 7 7  0

  Args:
    segments_BT: Segment of each position, in runs; 0 is padding.
    window: How far back a query sees, itself included; 0 is everything.
  """
  length = segments_BT.shape[1]
  place_1T = jnp.arange(length, dtype=jnp.int32)[None]
  changed_BT = segments_BT[:, 1:] != segments_BT[:, :-1]
  is_first_BT = jnp.pad(changed_BT, ((0, 0), (1, 0)), constant_values=True)
  is_last_BT = jnp.pad(changed_BT, ((0, 0), (0, 1)), constant_values=True)
  first_BT = jax.lax.cummax(jnp.where(is_first_BT, place_1T, 0), axis=1)
  end_BT = jax.lax.cummin(
    jnp.where(is_last_BT, place_1T + 1, length), axis=1, reverse=True
  )
  if window:
    first_BT = jnp.maximum(first_BT, place_1T - window + 1)
    end_BT = jnp.minimum(end_BT, place_1T + window)
  is_token_BT = segments_BT > 0
  return Reach(
    jnp.where(is_token_BT, first_BT, length), jnp.where(is_token_BT, end_BT, 0)
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attention(
  static: Static,
  q_BTKGH: jax.Array,
  k_BTKH: jax.Array,
  v_BTKH: jax.Array,
  reach: Reach,
) -> jax.Array:
  return _forward(static, q_BTKGH, k_BTKH, v_BTKH, reach)[0]


def _forward(
  static: Static,
  q_BTKGH: jax.Array,
  k_BTKH: jax.Array,
  v_BTKH: jax.Array,
  reach: Reach,
) -> tuple[jax.Array, _Residuals]:
  run = on_mesh(
    functools.partial(kernels.forward, static),
    ('q_BTKGH', 'k_BTKH', 'v_BTKH', 'first_BT'),
    ('out_BTKGH', 'sums_BKGT'),
  )
  out_BTKGH, sums_BKGT = (
    checkpoint_name(x, name)
    for x, name in zip(
      run(q_BTKGH, k_BTKH, v_BTKH, reach.first_BT), KEPT, strict=True
    )
  )
  return out_BTKGH, _Residuals(
    q_BTKGH, k_BTKH, v_BTKH, reach, out_BTKGH, sums_BKGT
  )


def _backward(
  static: Static, kept: _Residuals, dout_BTKGH: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, None]:
  """Returns the gradients of queries, keys and values, and none of `reach`."""
  delta_BTKG = jnp.sum(
    dout_BTKGH.astype(jnp.float32) * kept.out_BTKGH.astype(jnp.float32),
    axis=-1,
  )
  run = on_mesh(
    functools.partial(kernels.backward, static),
    (
      *('q_BTKGH', 'k_BTKH', 'v_BTKH', 'first_BT', 'end_BT'),
      *('dout_BTKGH', 'sums_BKGT', 'delta_BKGT'),
    ),
    ('dq_BTKGH', 'dk_BTKH', 'dv_BTKH'),
  )
  dq_BTKGH, dk_BTKH, dv_BTKH = run(
    kept.q_BTKGH,
    kept.k_BTKH,
    kept.v_BTKH,
    *kept.reach,
    dout_BTKGH,
    kept.sums_BKGT,
    jnp.moveaxis(delta_BTKG, 1, 3),
  )
  return dq_BTKGH, dk_BTKH, dv_BTKH, None


_attention.defvjp(_forward, _backward)
