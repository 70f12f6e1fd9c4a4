"""Cross-entropy over the vocabulary, a chunk of positions at a time.

Logits of a whole batch, [B, T, V] in float32, would outweigh the model. So
each chunk's logits are made, turned into their gradient at once, and dropped:
nothing is computed twice, and nothing of size V outlives its chunk. Positions
without weight (prompts, padding) are moved behind the others, and the loop
ends where they begin: the output head costs only what is trained on.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rest.model.sharding import ACTIVATIONS
from rest.model.transformer import Transformer, softcap

# Logits held at once on a device, in elements: 2^28 are 1 GiB.
_LOGITS = 2**28
# At least this many chunks a row, so that there is something to leave out.
_CHUNKS = 8


class _Spec(NamedTuple):
  """Static: what the gradient needs to know besides arrays."""

  chunk: int  # Positions of each row a step.
  shards: int  # Devices that hold different rows.
  softcap: float


def weighted_loss(
  model: Transformer,
  x_BTD: jax.Array,
  targets_BT: jax.Array,
  weights_BT: jax.Array,
) -> jax.Array:
  """Returns the sum over positions of weight x -log p(target), in float32.

  Differentiable in the model's head and in `x_BTD`.

  Args:
    model: Its output head and its soft-cap are used.
    x_BTD: Hidden states from `backbone`.
    targets_BT: Token ids.
    weights_BT: Weights, 0 where there is no target.
  """
  rows, length, _ = x_BTD.shape
  head_VD = model.embed_VD if model.head_VD is None else model.head_VD
  shards = _row_shards()
  chunk = chunk_length(rows // shards, length, model.config.vocab)
  spec = _Spec(chunk, shards, model.config.logits_softcap)

  # Weighted positions first; each row keeps to its own device.
  order_BT = jnp.argsort(weights_BT == 0, axis=1, stable=True)
  pad = ((0, 0), (0, -length % chunk))
  x_BTD = jnp.take_along_axis(x_BTD, order_BT[..., None], axis=1)
  return _loss(
    spec,
    jnp.pad(x_BTD, (*pad, (0, 0))),
    head_VD[...],
    jnp.pad(jnp.take_along_axis(targets_BT, order_BT, axis=1), pad),
    jnp.pad(jnp.take_along_axis(weights_BT, order_BT, axis=1), pad),
  )


def chunk_length(rows: int, length: int, vocab: int) -> int:
  """Returns how many positions of each row a device works on at once."""
  budget = _LOGITS // (rows * vocab)
  return min(length, max(16, min(budget, -(-length // _CHUNKS))))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _loss(spec, x_BTD, head_VD, targets_BT, weights_BT):
  head_DV = head_VD.astype(x_BTD.dtype).T

  def step(i, total):
    x, targets, weights = _chunk(spec, i, x_BTD, targets_BT, weights_BT)
    _, losses = _losses(spec, x, head_DV, targets)
    return total + jnp.sum(losses * weights)

  zero = jnp.zeros((), jnp.float32)
  return jax.lax.fori_loop(0, _chunks(spec, weights_BT), step, zero)


def _loss_fwd(spec, x_BTD, head_VD, targets_BT, weights_BT):
  """Returns the loss, and its gradients as residuals.

  The head's gradient is summed over rows of one device inside the loop and
  over devices after it: S is the axis of devices that hold different rows.
  """
  head_DV = head_VD.astype(x_BTD.dtype).T

  def step(i, carry):
    total, dx_BTD, dhead_SVD = carry
    x, targets, weights = _chunk(spec, i, x_BTD, targets_BT, weights_BT)
    logits, losses = _losses(spec, x, head_DV, targets)
    dlogits = _dlogits(spec, logits, targets, weights).astype(x.dtype)
    dx = jnp.einsum('BTV,DV->BTD', dlogits, head_DV)
    dx_BTD = jax.lax.dynamic_update_slice_in_dim(
      dx_BTD, dx, i * spec.chunk, axis=1
    )
    dhead_SVD += jnp.einsum(
      'SBTV,SBTD->SVD',
      _split(spec, dlogits),
      _split(spec, x),
      preferred_element_type=jnp.float32,
    )
    return total + jnp.sum(losses * weights), dx_BTD, dhead_SVD

  zeros = (
    jnp.zeros((), jnp.float32),
    jnp.zeros_like(x_BTD),
    _pin(jnp.zeros((spec.shards, *head_VD.shape), jnp.float32)),
  )
  total, dx_BTD, dhead_SVD = jax.lax.fori_loop(
    0, _chunks(spec, weights_BT), step, zeros
  )
  return total, (dx_BTD, jnp.sum(dhead_SVD, axis=0).astype(head_VD.dtype))


def _loss_bwd(spec, residuals, cotangent):
  del spec
  dx_BTD, dhead_VD = residuals
  dx_BTD = (dx_BTD * cotangent).astype(dx_BTD.dtype)
  return dx_BTD, (dhead_VD * cotangent).astype(dhead_VD.dtype), None, None


_loss.defvjp(_loss_fwd, _loss_bwd)


def _losses(spec, x_BTD, head_DV, targets_BT):
  """Returns float32 logits_BTV and losses_BT."""
  logits_BTV = jnp.einsum(
    'BTD,DV->BTV', x_BTD, head_DV, preferred_element_type=jnp.float32
  )
  logits_BTV = softcap(logits_BTV, spec.softcap)
  chosen_BT = jnp.take_along_axis(logits_BTV, targets_BT[..., None], axis=-1)
  return logits_BTV, jax.nn.logsumexp(logits_BTV, axis=-1) - chosen_BT[..., 0]


def _dlogits(spec, logits_BTV, targets_BT, weights_BT):
  """Returns the gradient of the weighted losses in the head's raw output."""
  is_target_BTV = (
    jax.lax.broadcasted_iota(jnp.int32, logits_BTV.shape, 2)
    == targets_BT[..., None]
  )
  dlogits_BTV = jax.nn.softmax(logits_BTV, axis=-1) - is_target_BTV
  dlogits_BTV *= weights_BT[..., None]
  if spec.softcap:
    dlogits_BTV *= 1 - (logits_BTV / spec.softcap) ** 2
  return dlogits_BTV


def _chunks(spec, weights_BT):
  """Returns how many chunks hold a weighted position, over all rows."""
  longest = jnp.max(jnp.sum(weights_BT != 0, axis=1))
  return (longest + spec.chunk - 1) // spec.chunk


def _chunk(spec, i, *arrays):
  return [
    jax.lax.dynamic_slice_in_dim(array, i * spec.chunk, spec.chunk, axis=1)
    for array in arrays
  ]


def _split(spec, x):
  return _pin(x.reshape(spec.shards, -1, *x.shape[1:]))


def _pin(x_S):
  """Keeps each device's part of the S axis on that device."""
  if jax.sharding.get_abstract_mesh().empty:
    return x_S
  rest = [jax.sharding.PartitionSpec.UNCONSTRAINED] * (x_S.ndim - 1)
  partition = jax.sharding.PartitionSpec(ACTIVATIONS['B'], *rest)
  return jax.lax.with_sharding_constraint(x_S, partition)


def _row_shards() -> int:
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty:
    return 1
  return math.prod(mesh.shape[axis] for axis in ACTIVATIONS['B'])
