"""From a batch to its loss, and the cross-entropy over the vocabulary.

Logits of a whole batch, [B, T, V] in float32, would outweigh the model. So
each chunk of positions has its logits made, turned into their gradient at once,
and dropped: nothing is computed twice, and nothing of size V outlives its
chunk. Positions without weight (prompts, padding) are moved behind the others,
and the loop ends where they begin: the output head costs only what is trained
on.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint

from rest.m_step.packing import Batch
from rest.model.attention import KEPT, packed_attention
from rest.model.sharding import (
  ACTIVATIONS,
  constrain,
  leaf_name,
  platform,
  spec,
)
from rest.model.transformer import Transformer, backbone, softcap, unstack

# Logits held at once on a device, in elements: 2^28 are 1 GiB.
_LOGITS = 2**28
# At least this many chunks a row, so that there is something to leave out.
_CHUNKS = 8

# What wraps a layer, by what the forward pass keeps for the backward pass.
REMATS: dict[str, Callable[..., Any]] = {
  'none': lambda run: run,
  'matmuls': functools.partial(
    jax.checkpoint,
    policy=jax.checkpoint_policies.save_from_both_policies(
      jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
      jax.checkpoint_policies.save_only_these_names(*KEPT),
    ),
  ),
  'full': jax.checkpoint,
}


class _Static(NamedTuple):
  """What the gradient needs to know besides arrays.

  Attributes:
    chunk: Positions of each row that are worked on at once.
    shards: Devices that hold different rows.
    softcap: Of the logits; 0 is off.
  """

  chunk: int
  shards: int
  softcap: float


def batch_loss(
  model: Transformer,
  batch: Batch,
  remat: str,
  shares: bool,
  is_adapted: bool = False,
) -> jax.Array:
  """Returns the sum over a batch's tokens of weight x -log p, in float32.

  Args:
    model: With stacked layers.
    batch: Packed rows.
    remat: A key of `REMATS`.
    shares: Whether sequences of a row may share prefixes.
    is_adapted: Whether adapters are trained, and the layers are not.
  """
  attend = packed_attention(
    model.config, batch.ends_BT, batch.positions_BT, shares
  )

  def wrap(run: Callable[..., Any]) -> Callable[..., Any]:
    run = REMATS[remat](run)
    if not _cuts_late(remat, is_adapted):
      return run
    return lambda x_BTD, layer, cache: run(*_cut(x_BTD, layer), cache)

  x_BTD, _ = backbone(
    unstack(model), batch.tokens_BT, batch.positions_BT, attend, remat=wrap
  )
  return weighted_loss(model, x_BTD, batch.targets_BT, batch.weights_BT)


def weighted_loss(
  model: Transformer,
  x_BTD: jax.Array,
  targets_BT: jax.Array,
  weights_BT: jax.Array,
) -> jax.Array:
  """Returns the sum over positions of weight x -log p(target), in float32.

  Differentiable in the model's head and in `x_BTD`. Within its row, a position
  may stand anywhere: a row of weights 0 0 1 1 0 1 is worked on in the order 2 3
  5 0 1 4, and in chunks of 2 the last chunk is left out.

  Args:
    model: Its output head and its soft-cap are used.
    x_BTD: Hidden states from `backbone`.
    targets_BT: Token ids.
    weights_BT: Weights, 0 where there is no target.
  """
  batch, length, _ = x_BTD.shape
  head_VD = model.embed_VD if model.head_VD is None else model.head_VD
  shards = row_shards()
  chunk = chunk_length(batch // shards, length, model.config.vocab)
  static = _Static(chunk, shards, model.config.logits_softcap)

  # Weighted positions first; each row keeps to its own device.
  order_BT = jnp.argsort(weights_BT == 0, axis=1, stable=True)
  pad = ((0, 0), (0, -length % chunk))
  x_BTD = jnp.take_along_axis(x_BTD, order_BT[..., None], axis=1)
  return _loss(
    static,
    jnp.pad(x_BTD, (*pad, (0, 0))),
    head_VD[...],
    jnp.pad(jnp.take_along_axis(targets_BT, order_BT, axis=1), pad),
    jnp.pad(jnp.take_along_axis(weights_BT, order_BT, axis=1), pad),
  )


def chunk_length(rows: int, length: int, vocab: int) -> int:
  """Returns how many positions of each row a device works on at once.

  Rows of 2,048 are cut into 8 chunks of 256; with 8 rows a device, and a
  vocabulary of 152,064, memory allows only 220 at once.
  """
  budget = _LOGITS // (rows * vocab)
  return min(length, max(16, min(budget, -(-length // _CHUNKS))))


def row_shards() -> int:
  """Returns how many devices of the mesh hold different rows."""
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty:
    return 1
  return math.prod(mesh.shape[axis] for axis in ACTIVATIONS['B'])


def _cuts_late(remat: str, is_adapted: bool) -> bool:
  """Whether devices that share weights must be told when to cut gradients.

  On TPUs those of adapters are cut without a word. On GPUs whole gradients are
  the peak where all else is made again, and only there; where they are not, the
  backward pass need not wait for what goes between devices.
  """
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty or mesh.shape['fsdp'] == 1:
    return False
  if platform() == 'tpu':
    return not is_adapted
  return platform() == 'gpu' and remat == 'full'


@jax.custom_vjp
def _cut(x_BTD: jax.Array, layer: Any) -> tuple[jax.Array, Any]:
  """Returns what a layer takes, whose gradients are cut before those below it.

  A layer's gradients are added up over the devices, and each keeps its part.
  Left to itself, the compiler cuts the parts in the optimizer, and until then
  the gradients of all layers lie whole on each device: of 7B, 12 GiB. Here the
  backward pass waits for the parts. On TPUs they are laid as the weights are:
  else the optimizer copies these, and its state, to how gradients happen to
  lie.
  """
  return x_BTD, layer


def _cut_fwd(x_BTD: jax.Array, layer: Any) -> tuple[Any, None]:
  return (x_BTD, layer), None


def _cut_bwd(_: None, gradients: tuple[jax.Array, Any]) -> tuple[Any, Any]:
  dx_BTD, dlayer = jax.lax.optimization_barrier(gradients)
  if platform() == 'tpu':  # Before the barrier, more was copied.
    dlayer = jax.tree_util.tree_map_with_path(_laid, dlayer)
  return dx_BTD, dlayer


_cut.defvjp(_cut_fwd, _cut_bwd)


def _laid(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
  """Returns a gradient that lies as its weights do; each device has its part.

  Asked for of the whole, where two axes of the mesh split a matrix, the
  compiler brought all of it to each device to be laid.
  """
  part = spec(leaf_name(path), leaf.ndim)
  layout = Layout(tuple(range(leaf.ndim)))
  return jax.shard_map(
    functools.partial(with_layout_constraint, layouts=layout),
    in_specs=part,
    out_specs=part,
    check_vma=False,
  )(leaf)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _loss(
  static: _Static,
  x_BTD: jax.Array,
  head_VD: jax.Array,
  targets_BT: jax.Array,
  weights_BT: jax.Array,
) -> jax.Array:
  head_DV = _brought(head_VD, x_BTD.dtype)

  def add_chunk(i: jax.Array, total: jax.Array) -> jax.Array:
    x, targets, weights = _chunk(static, i, x_BTD, targets_BT, weights_BT)
    _, losses = _losses(static, x, head_DV, targets)
    return total + jnp.sum(losses * weights)

  zero = jnp.zeros((), jnp.float32)
  return jax.lax.fori_loop(0, _chunks(static, weights_BT), add_chunk, zero)


def _loss_fwd(
  static: _Static,
  x_BTD: jax.Array,
  head_VD: jax.Array,
  targets_BT: jax.Array,
  weights_BT: jax.Array,
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
  """Returns the loss, and its gradients as residuals.

  Invariant: behind chunk i, `total` and `dhead` are those of the positions of
  chunks 0 to i, and `dx` is whole there and 0 behind. The head's gradient is
  summed over rows of one device inside the loop and over devices X after it.
  Where the longest row has 300 positions with weight, in chunks of 256 the loop
  runs twice, and of 8 chunks the last 6 cost nothing.
  """
  head_DV = _brought(head_VD, x_BTD.dtype)

  def add_chunk(
    i: jax.Array, carry: tuple[jax.Array, jax.Array, jax.Array]
  ) -> tuple[jax.Array, jax.Array, jax.Array]:
    total, dx_BTD, dhead_XVD = carry
    x, targets, weights = _chunk(static, i, x_BTD, targets_BT, weights_BT)
    logits, losses = _losses(static, x, head_DV, targets)
    dlogits = _dlogits(static, logits, targets, weights).astype(x.dtype)
    dx = jnp.einsum('BTV,DV->BTD', dlogits, head_DV)
    dx_BTD = jax.lax.dynamic_update_slice_in_dim(
      dx_BTD, dx, i * static.chunk, axis=1
    )
    dhead_XVD += jnp.einsum(
      'XBTV,XBTD->XVD',
      _by_device(static, dlogits),
      _by_device(static, x),
      preferred_element_type=jnp.float32,
    )
    return total + jnp.sum(losses * weights), dx_BTD, dhead_XVD

  zeros = (
    jnp.zeros((), jnp.float32),
    jnp.zeros_like(x_BTD),
    _pin(jnp.zeros((static.shards, *head_VD.shape), jnp.float32)),
  )
  total, dx_BTD, dhead_XVD = jax.lax.fori_loop(
    0, _chunks(static, weights_BT), add_chunk, zeros
  )
  return total, (dx_BTD, jnp.sum(dhead_XVD, axis=0).astype(head_VD.dtype))


def _loss_bwd(
  static: _Static,
  residuals: tuple[jax.Array, jax.Array],
  cotangent: jax.Array,
) -> tuple[jax.Array, jax.Array, None, None]:
  del static
  dx_BTD, dhead_VD = residuals
  dx_BTD = (dx_BTD * cotangent).astype(dx_BTD.dtype)
  return dx_BTD, (dhead_VD * cotangent).astype(dhead_VD.dtype), None, None


_loss.defvjp(_loss_fwd, _loss_bwd)


def _brought(head_VD: jax.Array, dtype: Any) -> jax.Array:
  """Returns the head as all chunks read it.

  Devices that share it have it before the loop; left to themselves, compilers
  bring it again for each chunk (bench/NOTES.md).
  """
  return constrain(head_VD.astype(dtype).T, 'DV')


def _losses(
  static: _Static, x_BTD: jax.Array, head_DV: jax.Array, targets_BT: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Returns float32 logits_BTV and losses_BT."""
  logits_BTV = jnp.einsum(
    'BTD,DV->BTV', x_BTD, head_DV, preferred_element_type=jnp.float32
  )
  logits_BTV = softcap(logits_BTV, static.softcap)
  chosen_BT = jnp.take_along_axis(logits_BTV, targets_BT[..., None], axis=-1)
  return logits_BTV, jax.nn.logsumexp(logits_BTV, axis=-1) - chosen_BT[..., 0]


def _dlogits(
  static: _Static,
  logits_BTV: jax.Array,
  targets_BT: jax.Array,
  weights_BT: jax.Array,
) -> jax.Array:
  """Returns the gradient of the weighted losses in the head's raw output."""
  is_target_BTV = (
    jax.lax.broadcasted_iota(jnp.int32, logits_BTV.shape, 2)
    == targets_BT[..., None]
  )
  dlogits_BTV = jax.nn.softmax(logits_BTV, axis=-1) - is_target_BTV
  dlogits_BTV *= weights_BT[..., None]
  if static.softcap:
    dlogits_BTV *= 1 - (logits_BTV / static.softcap) ** 2
  return dlogits_BTV


def _chunks(static: _Static, weights_BT: jax.Array) -> jax.Array:
  """Returns how many chunks hold a weighted position, over all rows."""
  longest = jnp.max(jnp.sum(weights_BT != 0, axis=1))
  return (longest + static.chunk - 1) // static.chunk


def _chunk(
  static: _Static, i: jax.Array, *arrays: jax.Array
) -> list[jax.Array]:
  return [
    jax.lax.dynamic_slice_in_dim(array, i * static.chunk, static.chunk, axis=1)
    for array in arrays
  ]


def _by_device(static: _Static, x: jax.Array) -> jax.Array:
  """Splits B into the devices X that hold different rows, and their rows."""
  return _pin(x.reshape(static.shards, -1, *x.shape[1:]))


def _pin(x_X: jax.Array) -> jax.Array:
  """Keeps each device's part of the X axis, which is in front, on it."""
  if jax.sharding.get_abstract_mesh().empty:
    return x_X
  others = [jax.sharding.PartitionSpec.UNCONSTRAINED] * (x_X.ndim - 1)
  partition = jax.sharding.PartitionSpec(ACTIVATIONS['B'], *others)
  return jax.lax.with_sharding_constraint(x_X, partition)
