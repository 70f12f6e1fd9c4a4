"""One decoder-only transformer for the open model families, one forward.

Llama 3, Mistral, Qwen2.5, Qwen3, Gemma 2 and 3, OLMo 2 and 3, SmolLM3 and Phi-4
differ in a few switches of `ModelConfig`. Training, prefill and decoding run
the same `backbone`; they differ in the attention function that they pass to it.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from rest.config import DTYPES
from rest.model.rope import Rope, RopeScaling, make_rope, rotate
from rest.model.sharding import constrain


@dataclass(frozen=True, slots=True)
class ModelConfig:
  """The shape of a model and the switches between families.

  Attributes:
    vocab: Rows of the embedding.
    width: Model width D.
    layers: Number of layers L.
    heads: Query heads N.
    kv_heads: Key/value heads K; divides `heads`.
    head_width: H.
    ffn: Width F of the gated feed-forward layer.
    context: Longest sequence in tokens that the model was trained for.
    rope_theta: Base of the rotary frequencies.
    rope_scaling: Their stretching, or None.
    local_rope_theta: Base in layers with a window (Gemma 3); 0: `rope_theta`.
    rotary_width: Dimensions of a head that are turned, the first (Phi-4 mini);
      0: all.
    turned: Per layer, whether queries and keys are turned (SmolLM3); () is all.
    windows: Per layer, how many tokens back attention reaches, itself included;
      0 is everything.
    norm_eps: Added to the mean square in norms.
    tied: Whether the output head is the embedding.
    qkv_bias: Qwen2.
    qk_norm: Norms of each head's queries and keys (Qwen3, Gemma 3).
    wide_qk_norm: Norms of all heads' queries, and keys, at once (OLMo).
    post_norms: Norms after attention and feed-forward, before adding (Gemma).
    late_norms: Norms there, and none before (OLMo).
    fused: Checkpoints hold fused projections (Phi); the model is the same.
    unit_offset: Norm weights are stored as w - 1 (Gemma).
    scaled_embedding: Embeddings are multiplied by sqrt(D) (Gemma).
    activation: 'silu' or 'gelu_tanh'.
    query_scale: Multiplies queries; 0 is 1 / sqrt(H).
    attention_softcap: Attention logits are squashed to +- this; 0 is off.
    logits_softcap: The same for output logits.
    dtype: Of matrix products: one of `DTYPES`; norms, softmax and logits are in
      float32.
  """

  vocab: int
  width: int
  layers: int
  heads: int
  kv_heads: int
  head_width: int
  ffn: int
  context: int = 2048
  rope_theta: float = 10_000.0
  rope_scaling: RopeScaling | None = None
  local_rope_theta: float = 0.0
  rotary_width: int = 0
  turned: tuple[bool, ...] = ()
  windows: tuple[int, ...] = ()
  norm_eps: float = 1e-6
  tied: bool = True
  qkv_bias: bool = False
  qk_norm: bool = False
  wide_qk_norm: bool = False
  post_norms: bool = False
  late_norms: bool = False
  fused: bool = False
  unit_offset: bool = False
  scaled_embedding: bool = False
  activation: str = 'silu'
  query_scale: float = 0.0
  attention_softcap: float = 0.0
  logits_softcap: float = 0.0
  dtype: str = 'float32'

  def __post_init__(self):
    if self.dtype not in DTYPES:
      raise ValueError(
        f'model.dtype must be one of {", ".join(DTYPES)}; got {self.dtype!r}.'
      )

  @property
  def groups(self) -> int:
    """Query heads per key/value head, G."""
    return self.heads // self.kv_heads

  @property
  def layer_windows(self) -> tuple[int, ...]:
    """The window of each layer; 0 is everything."""
    return self.windows or (0,) * self.layers

  @property
  def layer_turned(self) -> tuple[bool, ...]:
    """Whether each layer turns queries and keys."""
    return self.turned or (True,) * self.layers


# (q_BTKGH, k_BTKH, v_BTKH, window, cache of the layer) -> (out_BTKGH, aux).
# Queries and keys are rotated; queries are not scaled yet.
Attend = Callable[
  [jax.Array, jax.Array, jax.Array, int, Any], tuple[jax.Array, Any]
]


_Param = nnx.Param[jax.Array]


class Layer(nnx.Module):
  """One transformer layer, or a stack of them with an L axis in front.

  The three attention projections are one matrix, grouped by key/value head so
  that it splits over `tensor`: of P = G + 2 entries of a head, the first G are
  queries, then the key and the value. Gate and up are one matrix too.
  """

  def __init__(self, config: ModelConfig, make: Callable[..., _Param]):
    c, p, g = config, config.groups + 2, config.groups
    has_post_norms = c.post_norms or c.late_norms
    d, k, h, f = c.width, c.kv_heads, c.head_width, c.ffn
    self.attn_norm_D = None if c.late_norms else make((d,), 'norm')
    self.qkv_DKPH = make((d, k, p, h), d)
    self.qkv_bias_KPH = make((k, p, h), 'zero') if c.qkv_bias else None
    self.q_norm_H = make((h,), 'norm') if c.qk_norm else None
    self.k_norm_H = make((h,), 'norm') if c.qk_norm else None
    self.q_norm_KGH = make((k, g, h), 'norm') if c.wide_qk_norm else None
    self.k_norm_KH = make((k, h), 'norm') if c.wide_qk_norm else None
    self.o_KGHD = make((k, g, h, d), c.heads * h)
    self.attn_post_norm_D = make((d,), 'norm') if has_post_norms else None
    self.ffn_norm_D = None if c.late_norms else make((d,), 'norm')
    self.gate_up_DCF = make((d, 2, f), d)
    self.down_FD = make((f, d), f)
    self.ffn_post_norm_D = make((d,), 'norm') if has_post_norms else None


class Transformer(nnx.Module):
  """Parameters of a model; `layers` is one stack, or a list of layers."""

  def __init__(self, config: ModelConfig, key: jax.Array | None = None):
    """Makes random float32 parameters, for `jax.eval_shape` or training.

    Args:
      config: The shape.
      key: Random key; None makes zeros, for shapes only.
    """
    keys = iter(() if key is None else jax.random.split(key, 16))

    unit = 0.0 if config.unit_offset else 1.0

    def make(shape: tuple[int, ...], fan_in: int | str) -> _Param:
      if fan_in == 'norm':
        return nnx.Param(jnp.full(shape, unit, jnp.float32))
      if fan_in == 'zero' or key is None:
        return nnx.Param(jnp.zeros(shape))
      scale = 1.0 / math.sqrt(int(fan_in))
      return nnx.Param(jax.random.normal(next(keys), shape) * scale)

    def stack(shape: tuple[int, ...], fan_in: int | str) -> _Param:
      return make((config.layers, *shape), fan_in)

    self.config = config
    self.embed_VD = make((config.vocab, config.width), config.width)
    self.layers: Any = Layer(config, stack)  # Or a list: see `unstack`.
    self.final_norm_D = make((config.width,), 'norm')
    self.head_VD = (
      None if config.tied else make((config.vocab, config.width), config.width)
    )


def unstack(model: Transformer) -> Transformer:
  """Returns the model with a list of layers, as `backbone` wants it.

  Layers are unrolled, not scanned: a scan copies each layer's slice of what
  the backward pass keeps, and of every cache in decoding.
  """
  # Split, not indexed: its gradient is one concatenation, not a sum of L.
  ones = (1,) * model.config.layers
  leaves, tree = jax.tree.flatten(model.layers)
  pieces = [jax.lax.split(leaf, ones) for leaf in leaves]
  layers = [
    jax.tree.unflatten(tree, [jax.lax.squeeze(x, (0,)) for x in layer])
    for layer in zip(*pieces, strict=True)
  ]
  graph = jax.tree.map(lambda leaf: leaf, model)  # A shallow copy.
  graph.layers = nnx.List(layers)
  return graph


def backbone(
  model: Transformer,
  tokens_BT: jax.Array,
  positions_BT: jax.Array,
  attend: Attend,
  caches: Sequence[Any] | None = None,
  remat: Callable[..., Any] | None = None,
) -> tuple[jax.Array, list[Any]]:
  """Runs the layers and the final norm.

  Args:
    model: Of `unstack`.
    tokens_BT: Token ids.
    positions_BT: Position of each token in its own sequence, for the rotary
      embedding.
    attend: What attention means here (see `Attend`).
    caches: For each layer, whatever `attend` wants.
    remat: Wraps the layer function, such as a `jax.checkpoint` with a policy.

  Returns:
    Hidden states x_BTD in the compute dtype, and for each layer the aux value
    of `attend`.
  """
  config = model.config
  ropes = _ropes(config, positions_BT)
  x_BTD = constrain(_embed(model, tokens_BT), 'BTD')

  # Traced and lowered once for all layers of a kind.
  @functools.partial(jax.jit, static_argnums=(2, 3))
  def run_layer(
    x_BTD: jax.Array, layer: Layer, window: int, is_turned: bool, cache: Any
  ) -> tuple[jax.Array, Any]:
    rope = (ropes[1] if window else ropes[0]) if is_turned else None
    run = functools.partial(_layer, config, rope, attend, window)
    return (run if remat is None else remat(run))(x_BTD, layer, cache)

  aux: list[Any] = []
  for layer, window, is_turned, cache in zip(
    model.layers,
    config.layer_windows,
    config.layer_turned,
    caches or [None] * config.layers,
    strict=True,
  ):
    x_BTD, extra = run_layer(x_BTD, layer, window, is_turned, cache)
    aux.append(extra)
  return _norm(config, x_BTD, model.final_norm_D[...]), aux


def logits(model: Transformer, x_BTD: jax.Array) -> jax.Array:
  """Returns logits_BTV in float32 of hidden states from `backbone`."""
  head_VD = model.embed_VD if model.head_VD is None else model.head_VD
  logits_BTV = jnp.einsum(
    '...D,VD->...V',
    x_BTD,
    head_VD[...].astype(x_BTD.dtype),
    preferred_element_type=jnp.float32,
  )
  return softcap(logits_BTV, model.config.logits_softcap)


def query_scale(config: ModelConfig) -> float:
  """What queries are multiplied with before they meet keys."""
  return config.query_scale or config.head_width**-0.5


def softcap(x: jax.Array, cap: float) -> jax.Array:
  """Squashes to (-cap, cap); a cap of 0 does nothing."""
  return jnp.tanh(x / cap) * cap if cap else x


def _layer(
  config: ModelConfig,
  rope: Rope | None,
  attend: Attend,
  window: int,
  x_BTD: jax.Array,
  layer: Layer,
  cache: Any,
) -> tuple[jax.Array, Any]:
  """Returns x_BTD behind a layer, and the aux value of `attend`."""
  h_BTD = x_BTD
  if layer.attn_norm_D is not None:
    h_BTD = _norm(config, x_BTD, layer.attn_norm_D[...])
  q_BTKGH, k_BTKH, v_BTKH = _project(config, layer, h_BTD)
  if rope is not None:
    q_BTKGH, k_BTKH = rotate(q_BTKGH, rope), rotate(k_BTKH, rope)
  out_BTKGH, aux = attend(q_BTKGH, k_BTKH, v_BTKH, window, cache)
  # Not einsum: it contracts in another order, and XLA then transposes weights.
  h_BTD = jnp.tensordot(
    out_BTKGH.astype(x_BTD.dtype), layer.o_KGHD[...].astype(x_BTD.dtype), 3
  )
  if layer.attn_post_norm_D is not None:
    h_BTD = _norm(config, h_BTD, layer.attn_post_norm_D[...])
  x_BTD = x_BTD + h_BTD
  h_BTD = _feed_forward(config, layer, x_BTD)
  if layer.ffn_post_norm_D is not None:
    h_BTD = _norm(config, h_BTD, layer.ffn_post_norm_D[...])
  return constrain(x_BTD + h_BTD, 'BTD'), aux


def _project(
  config: ModelConfig, layer: Layer, h_BTD: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Returns q_BTKGH, k_BTKH and v_BTKH, before they are rotated."""
  dtype = h_BTD.dtype
  qkv_BTKPH = jnp.einsum(
    'BTD,DKPH->BTKPH', h_BTD, layer.qkv_DKPH[...].astype(dtype)
  )
  if layer.qkv_bias_KPH is not None:
    # In float32, and so is its gradient, a sum over all tokens.
    bias_KPH = layer.qkv_bias_KPH[...].astype(jnp.float32)
    qkv_BTKPH = (qkv_BTKPH + bias_KPH[None, None]).astype(dtype)
  groups = config.groups
  q_BTKGH, k_BTKPH, v_BTKPH = jnp.split(
    qkv_BTKPH, (groups, groups + 1), axis=-2
  )
  k_BTKH, v_BTKH = k_BTKPH[..., 0, :], v_BTKPH[..., 0, :]
  if layer.q_norm_H is not None and layer.k_norm_H is not None:
    q_BTKGH = _norm(config, q_BTKGH, layer.q_norm_H[...])
    k_BTKH = _norm(config, k_BTKH, layer.k_norm_H[...])
  if layer.q_norm_KGH is not None and layer.k_norm_KH is not None:
    q_BTKGH = _norm_heads(config, q_BTKGH, layer.q_norm_KGH[...])
    k_BTKH = _norm_heads(config, k_BTKH, layer.k_norm_KH[...])
  return q_BTKGH, k_BTKH, v_BTKH


def _feed_forward(
  config: ModelConfig, layer: Layer, x_BTD: jax.Array
) -> jax.Array:
  dtype = x_BTD.dtype
  h_BTD = x_BTD
  if layer.ffn_norm_D is not None:
    h_BTD = _norm(config, x_BTD, layer.ffn_norm_D[...])
  gate_up_BTCF = jnp.einsum(
    'BTD,DCF->BTCF', h_BTD, layer.gate_up_DCF[...].astype(dtype)
  )
  # Split, not indexed: its gradient is a concatenation, not a sum of pads.
  gate_BTF, up_BTF = (
    half[..., 0, :] for half in jnp.split(gate_up_BTCF, 2, axis=-2)
  )
  if config.activation == 'silu':
    gate_BTF = jax.nn.silu(gate_BTF)
  else:
    gate_BTF = jax.nn.gelu(gate_BTF, approximate=True)
  return jnp.einsum(
    'BTF,FD->BTD', gate_BTF * up_BTF, layer.down_FD[...].astype(dtype)
  )


def _embed(model: Transformer, tokens_BT: jax.Array) -> jax.Array:
  dtype = jnp.dtype(model.config.dtype)
  x_BTD = model.embed_VD[...][tokens_BT].astype(dtype)
  if model.config.scaled_embedding:
    # Rounded to the compute dtype first, as the Gemma reference does.
    x_BTD *= jnp.asarray(math.sqrt(model.config.width), dtype)
  return x_BTD


def _norm(config: ModelConfig, x: jax.Array, weight: jax.Array) -> jax.Array:
  """Returns x over its root mean square on the last axis, times the weight."""
  x32 = x.astype(jnp.float32)
  x32 *= jax.lax.rsqrt(
    jnp.mean(x32 * x32, axis=-1, keepdims=True) + config.norm_eps
  )
  weight = weight.astype(jnp.float32) + (1.0 if config.unit_offset else 0.0)
  weight = weight.reshape((1,) * (x.ndim - 1) + weight.shape)
  return (x32 * weight).astype(x.dtype)


def _norm_heads(
  config: ModelConfig, x: jax.Array, weight: jax.Array
) -> jax.Array:
  """Returns queries or keys, normed over all heads of a token."""
  flat = _norm(config, x.reshape(*x.shape[:2], -1), weight.reshape(-1))
  return flat.reshape(x.shape)


def _ropes(config: ModelConfig, positions_BT: jax.Array) -> tuple[Rope, Rope]:
  """Returns the turns in layers without a window, and in those with one."""
  width = config.rotary_width or config.head_width
  rope = make_rope(positions_BT, width, config.rope_theta, config.rope_scaling)
  if not config.local_rope_theta:
    return rope, rope
  return rope, make_rope(positions_BT, width, config.local_rope_theta)
