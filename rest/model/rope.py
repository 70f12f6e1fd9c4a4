"""Rotary position embeddings (Su et al., arXiv:2104.09864).

A head's H dimensions are J = H / 2 pairs, each turned by an angle that grows
with the token's position: the product of a query and a key then depends only
on how far apart they are. Models whose context was extended turn more slowly;
ways and fields are those of `rope_scaling` in Hugging Face's config.json.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


@dataclass(frozen=True, slots=True)
class Linear:
  """All pairs turn `factor` times more slowly."""

  factor: float
  attention = 1.0  # What cosines and sines are multiplied with.

  def frequencies(self, period_J: np.ndarray, theta: float) -> np.ndarray:
    """Returns angles a position; unscaled, they are 1 / period_J."""
    del theta
    return 1 / period_J / self.factor


@dataclass(frozen=True, slots=True)
class Llama3:
  """Pairs of long wavelengths turn more slowly, smoothly so (Llama 3.1).

  Attributes:
    factor: By how much.
    low_freq_factor: Wavelengths longer than the original context over this are
      stretched whole.
    high_freq_factor: Wavelengths shorter than it over this are kept.
    original_max_position_embeddings: Context in tokens before the extension.
  """

  factor: float
  low_freq_factor: float
  high_freq_factor: float
  original_max_position_embeddings: int
  attention = 1.0

  def frequencies(self, period_J: np.ndarray, theta: float) -> np.ndarray:
    """As in `Linear`."""
    del theta
    low, high = self.low_freq_factor, self.high_freq_factor
    frequency_J = 1 / period_J
    turns_J = self.original_max_position_embeddings * frequency_J
    blend_J = (turns_J / (2 * math.pi) - low) / (high - low)
    blend_J = np.clip(blend_J, 0.0, 1.0)
    return (1 - blend_J) * frequency_J / self.factor + blend_J * frequency_J


@dataclass(frozen=True, slots=True)
class Yarn:
  """YaRN (Peng et al., arXiv:2309.00071): by parts, and sharper attention.

  Attributes:
    factor: By how much slow pairs are slowed down.
    original_max_position_embeddings: Context in tokens before the extension.
    beta_fast: Pairs that turn more often than this in it are kept.
    beta_slow: Pairs that turn less often than this are slowed down whole.
    attention_factor: Multiplies cosines and sines; 0: from `factor`.
    mscale: Weighs `factor` in that, where `mscale_all_dim` is given as well.
    mscale_all_dim: Likewise, in what it is divided by.
    truncate: Whether the bounds between pairs are rounded outwards.
  """

  factor: float
  original_max_position_embeddings: int
  beta_fast: float = 32.0
  beta_slow: float = 1.0
  attention_factor: float = 0.0
  mscale: float = 0.0
  mscale_all_dim: float = 0.0
  truncate: bool = True

  @property
  def attention(self) -> float:
    """As in `Linear`."""
    if self.attention_factor:
      return self.attention_factor
    growth = 0.1 * math.log(max(self.factor, 1.0))
    if self.mscale and self.mscale_all_dim:
      return (self.mscale * growth + 1) / (self.mscale_all_dim * growth + 1)
    return growth + 1

  def frequencies(self, period_J: np.ndarray, theta: float) -> np.ndarray:
    """As in `Linear`."""
    pairs = len(period_J)

    def pair_of(turns: float) -> float:
      """Returns which pair turns so often in the original context."""
      wavelength = self.original_max_position_embeddings / turns
      return pairs * math.log(wavelength / (2 * math.pi)) / math.log(theta)

    first, last = pair_of(self.beta_fast), pair_of(self.beta_slow)
    if self.truncate:
      first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, 2 * pairs - 1)
    if first == last:
      last += 0.001
    ramp_J = (np.arange(pairs, dtype=np.float32) - first) / (last - first)
    kept_J = 1 - np.clip(ramp_J, 0.0, 1.0)
    slow_J = 1 / (self.factor * period_J)
    return slow_J * (1 - kept_J) + 1 / period_J * kept_J


@dataclass(frozen=True, slots=True)
class LongRope:
  """LongRoPE (Ding et al., arXiv:2402.13753): a factor for each pair.

  There are two sets: for sequences of up to the original context, and for
  longer ones. transformers looks at the sequence as it grows, and takes the
  other set in the middle of a completion; here it is chosen once, by the
  longest sequence that is planned (see `weights.load`), so that the keys of a
  token never depend on those behind it, and are the same in sampling and
  training.

  Attributes:
    short_factor: One for each pair, by which it is slowed down.
    long_factor: Likewise.
    original_max_position_embeddings: Context in tokens before the extension.
    factor: Of the extension; gives the factor on cosines and sines.
    attention_factor: That one; 0: from `factor`.
    is_long: Whether the long factors count.
  """

  short_factor: tuple[float, ...]
  long_factor: tuple[float, ...]
  original_max_position_embeddings: int
  factor: float
  attention_factor: float = 0.0
  is_long: bool = True

  @property
  def attention(self) -> float:
    """As in `Linear`."""
    if self.attention_factor or self.factor <= 1:
      return self.attention_factor or 1.0
    original = self.original_max_position_embeddings
    return math.sqrt(1 + math.log(self.factor) / math.log(original))

  def frequencies(self, period_J: np.ndarray, theta: float) -> np.ndarray:
    """As in `Linear`."""
    del theta
    factors = self.long_factor if self.is_long else self.short_factor
    return 1 / (np.asarray(factors, np.float32) * period_J)


RopeScaling = Linear | Llama3 | Yarn | LongRope

# By their `rope_type`.
SCALINGS: dict[str, type[RopeScaling]] = {
  'linear': Linear,
  'llama3': Llama3,
  'yarn': Yarn,
  'longrope': LongRope,
}


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
  period_J = np.float32(theta) ** exponents_J
  frequency_J = 1 / period_J
  if scaling is not None:
    frequency_J = scaling.frequencies(period_J, theta)
  angle_BTJ = (
    positions_BT[..., None].astype(jnp.float32) * frequency_J[None, None]
  )
  attention = 1.0 if scaling is None else scaling.attention
  return Rope(jnp.cos(angle_BTJ) * attention, jnp.sin(angle_BTJ) * attention)


def check_reach(scaling: RopeScaling | None, longest: int, what: str) -> None:
  """Refuses what is longer than the chosen factors of longrope are for.

  Args:
    scaling: Of a model.
    longest: In tokens.
    what: What has so many.
  """
  if not isinstance(scaling, LongRope) or scaling.is_long:
    return
  original = scaling.original_max_position_embeddings
  if longest > original:
    raise ValueError(
      f'{what} may have {longest} tokens, prompt included, but the model has '
      f'the factors of longrope for up to {original}: a run chooses them, once '
      'for sampling and training, by sampling.max_prompt_tokens + '
      'sampling.max_tokens.'
    )


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
