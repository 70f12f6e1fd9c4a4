"""Attention of packed rows, for `backbone`, with a gradient and on a mesh.

A row's segments are runs, so that two numbers a token say all that is seen, and
which blocks need not be met. Heads share keys and values as they are.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from rest.model.flash import kernels
from rest.model.hardware import runs_kernels
from rest.model.sharding import ACTIVATIONS, spec
from rest.model.transformer import Attend, ModelConfig, query_scale

# What the forward pass gives and the backward pass needs, for remat policies.
KEPT = ('attention_out_BTKGH', 'attention_sums_BKGT')


class _Reach(NamedTuple):
  """What sees what.

  Attributes:
    first_BT: First key that a query sees; it sees all from there to itself.
      The row's length for padding, which sees nothing.
    end_BT: End of the queries that see a key; 0 for padding.
  """

  first_BT: jax.Array
  end_BT: jax.Array


def has_kernel(config: ModelConfig, length: int, platform: str) -> bool:
  """Whether the kernels can run on rows of a length: it comes in tiles too."""
  return (
    runs_kernels(platform, config.dtype, config.head_width)
    and config.head_width <= 256
    and length % 64 == 0
  )


def flash_attention(
  config: ModelConfig,
  segments_BT: jax.Array,
  blocks: kernels.Blocks | None = None,
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
    blocks = kernels.WIDE if config.head_width > 128 else kernels.BLOCKS
  static = kernels.Static(
    query_scale(config), config.attention_softcap, blocks, interpret
  )
  whole = _segment_reach(segments_BT)

  def attend(q_BTKGH, k_BTKH, v_BTKH, window, cache):
    del cache
    reach = _within(whole, window)
    return _attention(static, q_BTKGH, k_BTKH, v_BTKH, reach), None

  return attend


def _segment_reach(segments_BT):
  length = segments_BT.shape[1]
  place_BT = jnp.broadcast_to(
    jnp.arange(length, dtype=jnp.int32)[None], segments_BT.shape
  )
  changed_BT = segments_BT[:, 1:] != segments_BT[:, :-1]
  is_first_BT = jnp.pad(changed_BT, ((0, 0), (1, 0)), constant_values=True)
  is_last_BT = jnp.pad(changed_BT, ((0, 0), (0, 1)), constant_values=True)
  first_BT = jax.lax.cummax(jnp.where(is_first_BT, place_BT, 0), axis=1)
  end_BT = jax.lax.cummin(
    jnp.where(is_last_BT, place_BT + 1, length), axis=1, reverse=True
  )
  is_token_BT = segments_BT > 0
  return _Reach(
    jnp.where(is_token_BT, first_BT, length), jnp.where(is_token_BT, end_BT, 0)
  )


def _within(reach, window):
  """Limits what is seen to a window; 0 is everything. It may be traced."""
  length = reach.first_BT.shape[1]
  window = jnp.asarray(window, jnp.int32)
  window = jnp.where(window > 0, window, length)
  place_1T = jnp.arange(length, dtype=jnp.int32)[None]
  return _Reach(
    jnp.maximum(reach.first_BT, place_1T - window + 1),
    jnp.minimum(reach.end_BT, place_1T + window),
  )


def _out(static, q_BTKGH, k_BTKH, v_BTKH, reach) -> jax.Array:
  return _keep(static, q_BTKGH, k_BTKH, v_BTKH, reach)[0]


def _keep(static, q_BTKGH, k_BTKH, v_BTKH, reach):
  run = _on_mesh(
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
  return out_BTKGH, (q_BTKGH, k_BTKH, v_BTKH, reach, out_BTKGH, sums_BKGT)


def _give_back(static, kept, dout_BTKGH):
  q_BTKGH, k_BTKH, v_BTKH, reach, out_BTKGH, sums_BKGT = kept
  delta_BTKG = jnp.sum(
    dout_BTKGH.astype(jnp.float32) * out_BTKGH.astype(jnp.float32), axis=-1
  )
  delta_BKGT = jnp.moveaxis(delta_BTKG, 1, 3)
  run = _on_mesh(
    functools.partial(kernels.backward, static),
    (
      *('q_BTKGH', 'k_BTKH', 'v_BTKH', 'first_BT', 'end_BT'),
      *('dout_BTKGH', 'sums_BKGT', 'delta_BKGT'),
    ),
    ('dq_BTKGH', 'dk_BTKH', 'dv_BTKH'),
  )
  inputs = q_BTKGH, k_BTKH, v_BTKH, *reach, dout_BTKGH, sums_BKGT, delta_BKGT
  return *run(*inputs), None


_attention = jax.custom_vjp(_out, nondiff_argnums=(0,))
_attention.defvjp(_keep, _give_back)


def _on_mesh(run, arguments, results) -> Callable[..., Any]:
  """Splits a function of named activations over the mesh, if there is one."""
  if jax.sharding.get_abstract_mesh().empty:
    return run

  def places(names):
    return tuple(
      spec(name, len(name.rsplit('_', 1)[-1]), ACTIVATIONS) for name in names
    )

  return jax.shard_map(
    run,
    in_specs=places(arguments),
    out_specs=places(results),
    check_vma=False,
  )
