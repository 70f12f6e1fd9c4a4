"""Optimizers of the M-step, through Optax, and where their state lives."""

from typing import Any

import jax
import optax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from rest.config import MStepConfig
from rest.model.sharding import leaf_name, spec


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


def partitions(state: Any, trained: Any) -> Any:
  """Returns the PartitionSpec of each leaf of an optimizer's state.

  State of a parameter's shape lies as the parameter does; the rest (counts,
  Adafactor's sums over an axis) is small and on every device.
  """
  shapes = {
    (leaf_name(path), leaf.shape)
    for path, leaf in jax.tree_util.tree_leaves_with_path(trained)
  }

  def one(path: tuple[Any, ...], leaf: Any) -> PartitionSpec:
    name = leaf_name(path)
    known = (name, leaf.shape) in shapes
    return spec(name, leaf.ndim) if known else PartitionSpec()

  return jax.tree_util.tree_map_with_path(one, state)


def abstract_state(
  config: MStepConfig, trained: Any, mesh: Mesh | AbstractMesh
) -> Any:
  """Returns shapes and shardings of the optimizer's state."""
  shapes = jax.eval_shape(make_optimizer(config).init, trained)
  return jax.tree.map(
    lambda leaf, partition: jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, partition)
    ),
    shapes,
    partitions(shapes, trained),
  )


def init_state(config: MStepConfig, trained: Any, mesh: Mesh) -> Any:
  """Returns the optimizer's first state, made where it will live."""
  shapes = abstract_state(config, trained, mesh)
  return jax.jit(
    make_optimizer(config).init,
    out_shardings=jax.tree.map(lambda leaf: leaf.sharding, shapes),
  )(trained)
