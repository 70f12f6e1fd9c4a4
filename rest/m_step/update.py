"""One step of training: packed rows in, loss, gradient, new parameters.

The loss is the mean over the completion tokens of all rows on all devices, by
their weights; parts of a batch (devices, accumulation) add up to it exactly.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rest.config import MStepConfig
from rest.m_step.loss import weighted_loss
from rest.m_step.optimizer import make_optimizer
from rest.m_step.packing import Batch, Example, pack
from rest.model.attention import plain_attention
from rest.model.flash import KEPT, flash_attention, has_kernel
from rest.model.lora import attach
from rest.model.sharding import ACTIVATIONS, leaf_name, spec
from rest.model.transformer import Transformer, backbone, unstack


class Metrics(NamedTuple):
  """What a step saw: scalars, on the device or as floats on the host.

  Attributes:
    loss: Mean of -log p over the step's completion tokens, by their weights.
    gradient_norm: Global, before clipping.
    weight: Sum of the weights: the number of completion tokens where all are 1.
  """

  loss: Any
  gradient_norm: Any
  weight: Any


def update(
  trained: Any,
  optimizer: Any,
  batch: Batch,
  learning_rate: jax.Array | np.float32,
  frozen: Transformer | None = None,
  *,
  config: MStepConfig,
) -> tuple[Any, Any, Metrics]:
  """Takes one optimizer step. Donates `trained` and `optimizer`.

  Args:
    trained: The model, or its adapters.
    optimizer: The optimizer's state.
    batch: Packed rows.
    learning_rate: Of this step.
    frozen: The model that adapters belong to; None without adapters.
    config: Compiled in.

  Returns:
    What takes the place of `trained` and `optimizer`, and metrics.
  """
  places = jax.tree.map(lambda x: x.sharding, (trained, optimizer))
  leaves, tree = jax.tree.flatten(places)
  run = _compiled(config, tuple(leaves), tree)
  return run(trained, optimizer, batch, learning_rate, frozen)


@functools.cache
def _compiled(config, leaves, tree):
  """Returns the jitted step whose results live where its arguments do.

  Left to itself the compiler calls the same places by other names, and the
  second step would be compiled anew.
  """
  return jax.jit(
    functools.partial(_update, config),
    donate_argnums=(0, 1),
    out_shardings=(*jax.tree.unflatten(tree, leaves), None),
  )


def _update(config, trained, optimizer, batch, learning_rate, frozen):
  loss, gradient = gradients(trained, batch, frozen, config=config)
  gradient = _pin(gradient)
  metrics = Metrics(loss, optax.tree.norm(gradient), jnp.sum(batch.weights_BT))
  step, optimizer = make_optimizer(config).update(gradient, optimizer, trained)
  trained = jax.tree.map(
    lambda x, dx: x + (learning_rate * dx).astype(x.dtype), trained, step
  )
  return trained, optimizer, metrics


def held_out_loss(
  model: Transformer,
  examples: Sequence[Example],
  config: MStepConfig,
  mesh: Mesh,
) -> float:
  """Returns the mean of -log p over completion tokens, by their weights."""
  total, weight = 0.0, 0.0
  with jax.set_mesh(mesh):
    for batch in pack(examples, config.row_length, config.rows):
      weight += float(batch.weights_BT.sum())
      total += float(_evaluate(model, put(batch, mesh)))
  return total / weight


def put(batch: Batch, mesh: Mesh) -> Batch:
  """Puts a batch on the mesh, rows over devices.

  Every process has the whole batch and sends what its devices need.
  """
  sharding = NamedSharding(mesh, PartitionSpec(ACTIVATIONS['B']))
  if jax.process_count() == 1:
    return jax.device_put(batch, sharding)
  return jax.tree.map(
    lambda x: jax.make_array_from_callback(x.shape, sharding, x.__getitem__),
    batch,
  )


def gradients(
  trained: Any,
  batch: Batch,
  frozen: Transformer | None = None,
  *,
  config: MStepConfig,
) -> tuple[jax.Array, Any]:
  """Returns the mean loss of a batch, and its gradient in what is trained."""
  weight = jnp.sum(batch.weights_BT)

  def loss(trained, part):
    model = assemble(trained, frozen, config)
    return _loss_sum(model, part, config.remat) / weight

  if config.accumulate == 1:
    return jax.value_and_grad(loss)(trained, batch)

  def add(total, part):
    return jax.tree.map(
      jnp.add, total, jax.value_and_grad(loss)(trained, part)
    ), None

  zeros = jax.tree.map(jnp.zeros_like, (weight, trained))
  return jax.lax.scan(add, zeros, _parts(batch, config.accumulate))[0]


def _parts(batch, count):
  """Splits rows into parts, each of which lies on all devices."""
  parts = jax.tree.map(
    lambda x: x.reshape(-1, count, *x.shape[1:]).swapaxes(0, 1), batch
  )
  if jax.sharding.get_abstract_mesh().empty:
    return parts
  rows = PartitionSpec(None, ACTIVATIONS['B'])
  return jax.lax.with_sharding_constraint(parts, rows)


def _loss_sum(model, batch, remat):
  wrap = {
    'none': None,
    'matmuls': functools.partial(jax.checkpoint, policy=_MATMULS),
    'full': jax.checkpoint,
  }[remat]
  attend = _attention(model.config, batch)
  x_BTD, _ = backbone(
    unstack(model), batch.tokens_BT, batch.positions_BT, attend, remat=wrap
  )
  return weighted_loss(model, x_BTD, batch.targets_BT, batch.weights_BT)


def _attention(config, batch):
  length = batch.segments_BT.shape[1]
  if has_kernel(config, length, jax.devices()[0].platform):
    return flash_attention(config, batch.segments_BT)
  return plain_attention(config, batch.segments_BT, batch.positions_BT)


_MATMULS = jax.checkpoint_policies.save_from_both_policies(
  jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
  jax.checkpoint_policies.save_only_these_names(*KEPT),
)


@jax.jit
def _evaluate(model, batch):
  return _loss_sum(model, batch, 'none')


def assemble(
  trained: Any, frozen: Transformer | None, config: MStepConfig
) -> Transformer:
  """Returns the model that is trained: itself, or one with adapters."""
  if frozen is None:
    return trained
  return attach(frozen, trained, config.lora_scale)


def _pin(tree):
  """Keeps each leaf where its name says; without a mesh, does nothing."""
  if jax.sharding.get_abstract_mesh().empty:
    return tree
  where = jax.tree_util.tree_map_with_path(
    lambda path, leaf: spec(leaf_name(path), leaf.ndim), tree
  )
  return jax.tree.map(jax.lax.with_sharding_constraint, tree, where)
