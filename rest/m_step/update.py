"""One step of training: packed rows in, gradient, optimizer, new parameters.

The loss is the mean over the completion tokens of all rows on all devices, by
their weights; parts of a batch (devices, accumulation) add up to it exactly.
"""

import functools
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from rest.config import MStepConfig
from rest.m_step import packing
from rest.m_step.batches import draw_batches
from rest.m_step.loss import batch_loss, row_shards
from rest.m_step.packing import Batch, Example
from rest.model.hardware import compiler_options
from rest.model.lora import attach
from rest.model.sharding import ACTIVATIONS, leaf_name, spec
from rest.model.transformer import Transformer


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
  run = program(config, trained, optimizer)
  return run(trained, optimizer, batch, learning_rate, frozen)


def program(config: MStepConfig, trained: Any, optimizer: Any) -> Any:
  """Returns the jitted `update` of arrays, or of their shapes and places."""
  places = jax.tree.map(attrgetter('sharding'), (trained, optimizer))
  leaves, tree = jax.tree.flatten(places)
  return _compiled(config, tuple(leaves), tree)


def gradients(
  trained: Any,
  batch: Batch,
  frozen: Transformer | None = None,
  *,
  config: MStepConfig,
) -> tuple[jax.Array, Any]:
  """Returns the mean loss of a batch, and its gradient in what is trained.

  Invariant: whatever the parts, each is divided by the weight of the whole
  batch, so that their sum is the mean over all tokens. Two parts of losses 6
  and 4 and of weights 3 and 1 give 6 / 4 + 4 / 4 = 2.5, as one part of 10 and 4
  would; the mean of their means, 2 and 4, would be 3.

  Args:
    trained: The model, or its adapters.
    batch: Packed rows; what a device has more than `config.rows` of is worked
      on in parts.
    frozen: The model that adapters belong to.
    config: How it is trained.
  """
  weight = jnp.sum(batch.weights_BT)
  count = packing.parts(len(batch.tokens_BT), config.rows * row_shards())

  def loss(trained: Any, part: Batch) -> jax.Array:
    model = assemble(trained, frozen, config)
    total = batch_loss(
      model, part, config.remat, config.share_prefixes, frozen is not None
    )
    return total / weight

  if count == 1:
    return jax.value_and_grad(loss)(trained, batch)

  def add(total: Any, part: Batch) -> tuple[Any, None]:
    return jax.tree.map(
      jnp.add, total, jax.value_and_grad(loss)(trained, part)
    ), None

  zeros = jax.tree.map(jnp.zeros_like, (weight, trained))
  return jax.lax.scan(add, zeros, _parts(batch, count))[0]


def held_out_loss(
  model: Transformer,
  examples: Sequence[Example],
  config: MStepConfig,
  mesh: Mesh,
) -> float:
  """Returns the mean of -log p over completion tokens, by their weights."""
  packing.check(examples, config.row_length)
  share = config.share_prefixes
  batches = draw_batches(examples, config.batch, 0, 0)
  total, weight = 0.0, 0.0
  with jax.set_mesh(mesh):
    shape = packing.plan(
      examples, batches, config.row_length, config.rows, row_shards(), share
    )
    for members in batches:
      batch = packing.pack(examples, members, shape, share)
      weight += float(batch.weights_BT.sum())
      total += float(_evaluate(config.rows, share, model, put(batch, mesh)))
  return total / weight


def make_optimizer(config: MStepConfig) -> optax.GradientTransformation:
  """Returns the optimizer at a learning rate of 1.

  Its updates are multiplied with the rate of the step, which comes in from
  outside, so that no number of steps is compiled into the program.
  """
  clip = (
    optax.clip_by_global_norm(config.clip) if config.clip else optax.identity()
  )
  if config.optimizer == 'adamw':
    return optax.chain(
      clip,
      optax.scale_by_adam(b1=config.beta1, b2=config.beta2, eps=config.epsilon),
      optax.add_decayed_weights(config.weight_decay, mask=decayed),
      optax.scale(-1.0),
    )
  return optax.chain(
    clip,
    optax.scale_by_factored_rms(),
    optax.clip_by_block_rms(1.0),
    optax.scale_by_param_block_rms(),
    optax.add_decayed_weights(config.weight_decay, mask=decayed),
    optax.scale(-1.0),
  )


def decayed(tree: Any) -> Any:
  """Returns which leaves weight decay acts on: no norms, no biases."""

  def one(path: tuple[Any, ...], _: Any) -> bool:
    name = leaf_name(path)
    return '_norm_' not in name and '_bias_' not in name

  return jax.tree_util.tree_map_with_path(one, tree)


def abstract_state(
  config: MStepConfig, trained: Any, mesh: Mesh | AbstractMesh
) -> Any:
  """Returns shapes and shardings of the optimizer's state.

  State of a parameter's shape lies as the parameter does; the rest (counts,
  Adafactor's sums over an axis) is small and on every device.
  """
  parameters = {
    (leaf_name(path), leaf.shape)
    for path, leaf in jax.tree_util.tree_leaves_with_path(trained)
  }

  def place(path: tuple[Any, ...], leaf: Any) -> jax.ShapeDtypeStruct:
    name = leaf_name(path)
    is_like_one = (name, leaf.shape) in parameters
    where = spec(name, leaf.ndim) if is_like_one else PartitionSpec()
    return jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, where)
    )

  shapes = jax.eval_shape(make_optimizer(config).init, trained)
  return jax.tree_util.tree_map_with_path(place, shapes)


def init_state(config: MStepConfig, trained: Any, mesh: Mesh) -> Any:
  """Returns the optimizer's first state, made where it will live."""
  shapes = abstract_state(config, trained, mesh)
  return jax.jit(
    make_optimizer(config).init,
    out_shardings=jax.tree.map(attrgetter('sharding'), shapes),
  )(trained)


def put(batch: Batch, mesh: Mesh) -> Batch:
  """Puts a batch on the mesh, rows over devices.

  Every process has the whole batch and sends what its devices need.
  """
  sharding = NamedSharding(mesh, PartitionSpec(ACTIVATIONS['B']))
  if jax.process_count() == 1:
    return jax.device_put(batch, sharding)

  def send(x: np.ndarray) -> jax.Array:
    return jax.make_array_from_callback(x.shape, sharding, x.__getitem__)

  return jax.tree.map(send, batch)


def assemble(
  trained: Any, frozen: Transformer | None, config: MStepConfig
) -> Transformer:
  """Returns the model that is trained: itself, or one with adapters."""
  if frozen is None:
    return trained
  return attach(frozen, trained, config.lora_scale)


@functools.cache
def _compiled(
  config: MStepConfig, leaves: tuple[Any, ...], tree: Any
) -> Callable[..., tuple[Any, Any, Metrics]]:
  """Returns the jitted step whose results live where its arguments do.

  Left to itself the compiler calls the same places by other names, and the
  second step would be compiled anew.
  """
  device = next(iter(leaves[0].device_set))
  return jax.jit(
    functools.partial(_update, config),
    donate_argnums=(0, 1),
    out_shardings=(*jax.tree.unflatten(tree, leaves), None),
    compiler_options=compiler_options(device.platform),
  )


def _update(
  config: MStepConfig,
  trained: Any,
  optimizer: Any,
  batch: Batch,
  learning_rate: jax.Array,
  frozen: Transformer | None,
) -> tuple[Any, Any, Metrics]:
  loss, gradient = gradients(trained, batch, frozen, config=config)
  gradient = _pin(gradient)
  metrics = Metrics(loss, optax.tree.norm(gradient), jnp.sum(batch.weights_BT))
  step, optimizer = make_optimizer(config).update(gradient, optimizer, trained)

  def add(x: jax.Array, dx: jax.Array) -> jax.Array:
    return x + (learning_rate * dx).astype(x.dtype)

  return jax.tree.map(add, trained, step), optimizer, metrics


def _parts(batch: Batch, count: int) -> Batch:
  """Splits rows into parts, each of which lies on all devices.

  Of 8 rows on 4 devices, rows 0 and 1 on the first, two parts are rows 0, 2, 4,
  6 and 1, 3, 5, 7: no row moves. Arrays gain an axis of parts, in front.
  """

  def split(x: jax.Array) -> jax.Array:
    return x.reshape(-1, count, *x.shape[1:]).swapaxes(0, 1)

  parts = jax.tree.map(split, batch)
  if jax.sharding.get_abstract_mesh().empty:
    return parts
  rows = PartitionSpec(None, ACTIVATIONS['B'])
  return jax.lax.with_sharding_constraint(parts, rows)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _evaluate(
  rows: int, shares: bool, model: Transformer, batch: Batch
) -> jax.Array:
  count = packing.parts(len(batch.tokens_BT), rows * row_shards())
  parts = _parts(batch, count)

  def loss(part: Batch) -> jax.Array:
    return batch_loss(model, part, 'none', shares)

  return jnp.sum(jax.lax.map(loss, parts))


def _pin(tree: Any) -> Any:
  """Keeps each leaf where its name says; without a mesh, does nothing."""
  if jax.sharding.get_abstract_mesh().empty:
    return tree

  def pin(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
    where = spec(leaf_name(path), leaf.ndim)
    return jax.lax.with_sharding_constraint(leaf, where)

  return jax.tree_util.tree_map_with_path(pin, tree)
