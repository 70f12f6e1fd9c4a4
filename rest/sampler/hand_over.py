"""How the trainer's weights become the sampler's.

Trained in float32 and split over all devices; decoded with in the compute type,
each row of devices by itself.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from rest.model.sharding import COPIES, leaf_name, shardings
from rest.model.transformer import ModelConfig, Transformer, unstack
from rest.sampler.table import placed


@functools.cache
def hand_over(config: ModelConfig, mesh: Mesh) -> Any:
  """Returns the program that makes the trainer's model decoding's own.

  That is a list of layers in the compute type, split over `tensor` only:
  gathering over `fsdp` each step would cost more than the step. On a mesh (2,
  2, 2) a device has half of D and half of F of `gate_up_DCF`, and then all of D
  and the same half of F.

  Args:
    config: The model's shape.
    mesh: The trainer's, of all devices. Every process must call the program.
  """
  places = jax.tree.map(lambda x: x.sharding, handed_over(config, mesh))
  return jax.jit(_as_decoding_has_it(mesh), out_shardings=places)


@functools.cache
def handed_over(config: ModelConfig, mesh: Mesh) -> Transformer:
  """Returns shapes and places of weights as `hand_over` leaves them."""
  own = _as_decoding_has_it(mesh)
  shapes = jax.eval_shape(lambda: own(Transformer(config)))
  return jax.tree.map(placed, shapes, shardings(shapes, mesh, COPIES))


class _Turned(nnx.Module):
  """Stands where `gate_up_DCF` stood, and has C in front.

  TPUs read arrays in tiles of 8 x 128, of which C, of 2, would fill a quarter:
  each call of decoding copied the array to lie so.
  """

  def __init__(self, gate_up_DCF: jax.Array):
    self.gate_up_CDF = nnx.Param(jnp.swapaxes(gate_up_DCF, 0, 1))

  def __getitem__(self, index: Any) -> jax.Array:
    return jnp.swapaxes(self.gate_up_CDF[...], 0, 1)[index]


def _as_decoding_has_it(mesh: Mesh) -> Callable[[Transformer], Transformer]:
  """Returns what makes the trainer's model decoding's own, for devices."""

  def convert(model: Transformer) -> Transformer:
    model = unstack(_in_compute_type(model))
    for layer in model.layers if _turns(mesh) else ():
      layer.gate_up_DCF = _Turned(layer.gate_up_DCF[...])
    return model

  return convert


def _turns(mesh: Mesh) -> bool:
  return mesh.devices.flat[0].platform == 'tpu'


def _in_compute_type(model: Transformer) -> Transformer:
  """Returns a model whose matrices are in the compute type.

  Norms and biases stay in float32, as the trainer computes with them.
  """
  dtype = jnp.dtype(model.config.dtype)

  def convert(path: Any, leaf: jax.Array) -> jax.Array:
    letters = leaf_name(path).rsplit('_', 1)[-1]
    is_matrix = 'D' in letters and len(letters) > 1
    return leaf.astype(dtype) if is_matrix else leaf

  return jax.tree_util.tree_map_with_path(convert, model)
