"""Rotary position embeddings (Su et al., arXiv:2104.09864).

A head's H dimensions are J = H / 2 pairs, each turned by an angle that grows
with the token's position: the product of a query and a key then depends only
on how far apart they are.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


@dataclass(frozen=True, slots=True)
class RopeScaling:
  """Stretching of rotary frequencies, as in Hugging Face's `rope_scaling`.

  Attributes:
    kind: 'linear' (all frequencies divided by `factor`) or 'llama3' (long
      wavelengths divided, short ones kept, smooth in between).
    factor: By how much the context was extended.
    low: Wavelengths longer than `original` / low are divided ('llama3').
    high: Wavelengths shorter than `original` / high are kept ('llama3').
    original: Context length in tokens before the extension ('llama3').
  """

  kind: str
  factor: float
  low: float = 1.0
  high: float = 4.0
  original: int = 8192


class Rope(NamedTuple):
  """By how much each pair of each token is turned, in float32."""

  cos_BTJ: jax.Array
  sin_BTJ: jax.Array


def make_rope(
  positions_BT: jax.Array,
  width: int,
  theta: float,
  scaling: RopeScaling | None = None,
) -> Rope:
  """Returns the turns of tokens at these positions.

  Args:
    positions_BT: Position of each token in its own sequence.
    width: Dimensions of a head that are turned, 2 J.
    theta: Base: pair j turns by theta^(-j / J) a position.
    scaling: How the frequencies are stretched.
  """
  # On the host: a rounding error here grows with the position, and devices
  # round powers differently.
  pairs = width // 2
  exponents_J = np.arange(pairs, dtype=np.float32) / np.float32(pairs)
  frequency_J = _stretch(1 / np.float32(theta) ** exponents_J, scaling)
  angle_BTJ = (
    positions_BT[..., None].astype(jnp.float32) * frequency_J[None, None]
  )
  return Rope(jnp.cos(angle_BTJ), jnp.sin(angle_BTJ))


def rotate(x: jax.Array, rope: Rope) -> jax.Array:
  """Returns queries or keys, turned; axes are B, T, any others, H.

  Dimension j is paired with j + J, as Hugging Face's checkpoints expect; those
  from 2 J on stay as they are.
  """
  between = (1,) * (x.ndim - 3)
  batch, length, pairs = rope.cos_BTJ.shape
  cos, sin = (part.reshape(batch, length, *between, pairs) for part in rope)
  turned, rest = x[..., : 2 * pairs], x[..., 2 * pairs :]
  first, second = jnp.split(turned.astype(jnp.float32), 2, axis=-1)
  rotated = jnp.concatenate(
    [first * cos - second * sin, second * cos + first * sin], axis=-1
  )
  return jnp.concatenate([rotated.astype(x.dtype), rest], axis=-1)


def _stretch(
  frequency_J: np.ndarray, scaling: RopeScaling | None
) -> np.ndarray:
  if scaling is None:
    return frequency_J
  slow_J = frequency_J / scaling.factor
  if scaling.kind == 'linear':
    return slow_J
  turns_J = scaling.original * frequency_J / (2 * math.pi)
  blend_J = (turns_J - scaling.low) / (scaling.high - scaling.low)
  blend_J = np.clip(blend_J, 0.0, 1.0)
  return (1 - blend_J) * slow_J + blend_J * frequency_J
