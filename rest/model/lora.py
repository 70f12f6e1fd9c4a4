"""Low-rank adapters: W + scale * A B, where only A and B are trained.

For those who lack the memory for gradients and optimizer state of all
weights. The sum is made layer by layer inside the forward pass, so that the
model itself does not know of adapters.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from rest.model.transformer import Transformer

# Which matrices get adapters: axis letters in, axis letters out.
_MATRICES = {
  'qkv_DKPH': ('D', 'KPH'),
  'o_KGHD': ('KGH', 'D'),
  'gate_up_DCF': ('D', 'CF'),
  'down_FD': ('F', 'D'),
}

# {matrix: {'a_..R': A, 'b_R..': B}}, with an L axis in front.
Adapters = dict[str, dict[str, jax.Array]]


class _Adapted(nnx.Module):
  """Stands where a matrix stood; `[...]` gives the sum."""

  def __init__(self, base: Any, adapter: Any, name: str, scale: float):
    self.base = base
    self.a, self.b = (nnx.Param(x) for x in adapter.values())
    self.name = name
    self.scale = scale

  def __getitem__(self, index: Any) -> jax.Array:
    inputs, outputs = _MATRICES[self.name]
    product = jnp.einsum(
      f'...{inputs}R,...R{outputs}->...{inputs}{outputs}',
      self.a[...],
      self.b[...],
    )
    base = self.base[...]
    total = base.astype(jnp.float32) + self.scale * product
    return total.astype(base.dtype)[index]


def init_adapters(model: Transformer, rank: int, key: jax.Array) -> Adapters:
  """Returns adapters that change nothing yet: A is random, B is zero."""
  adapters: Adapters = {}
  for index, (name, (inputs, outputs)) in enumerate(_MATRICES.items()):
    shape = getattr(model.layers, name).shape
    ins = shape[1 : 1 + len(inputs)]
    outs = shape[1 + len(inputs) :]
    a = jax.random.normal(
      jax.random.fold_in(key, index), (shape[0], *ins, rank)
    )
    adapters[name] = {
      f'a_{inputs}R': a / math.sqrt(math.prod(ins)),
      f'b_R{outputs}': jnp.zeros((shape[0], rank, *outs)),
    }
  return adapters


def attach(model: Transformer, adapters: Adapters, scale: float) -> Transformer:
  """Returns the model with adapters beside its matrices."""
  adapted = jax.tree.map(lambda leaf: leaf, model)  # A shallow copy.
  for name, adapter in adapters.items():
    base = getattr(adapted.layers, name)
    setattr(adapted.layers, name, _Adapted(base, adapter, name, scale))
  return adapted


def merge(model: Transformer, adapters: Adapters, scale: float) -> Transformer:
  """Returns a plain model: each matrix replaced by its sum."""
  adapted = attach(model, adapters, scale)
  for name in adapters:
    merged = nnx.Param(getattr(adapted.layers, name)[...])
    setattr(adapted.layers, name, merged)
  return adapted
