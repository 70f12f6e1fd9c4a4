"""What a run takes of a device, by arithmetic: bytes, and hours.

Parameters and the optimizer's state are counted exactly; what a step holds
besides is a model of what XLA keeps, within 10 % of what was measured (see
`StepMemory`). Rates are scaled from those of one H200 in bench/NOTES.md.
"""

import math
from dataclasses import dataclass, fields
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, Mesh

from rest.config import MStepConfig
from rest.m_step import loss
from rest.m_step.update import abstract_state
from rest.model import attention, lora, sharding
from rest.model.hardware import Device, parse
from rest.model.transformer import ModelConfig, Transformer

# (parameters, tokens drawn a second, share of the data sheet's FLOP/s that
# training reaches) of one H200, at Qwen2.5's shapes (bench/NOTES.md).
_MEASURED = ((1.54e9, 108_062, 0.574), (7.62e9, 30_633, 0.560))
# That share where rows share prefixes, at the first of them: a step has then a
# quarter of the positions, and waits for weights and state.
_MEASURED_SHARED = 0.333
_MEASURED_ON, _ = parse('h200-1')


@dataclass(frozen=True, slots=True)
class StepMemory:
  """Bytes on each device at the peak of a step of the M-step.

  On one H200, in GiB: 72.3 where 67.8 were measured (1.5 B, 16 rows of 2,048,
  'matmuls'), 134.1 for 132.4 (7 B, 3 rows). On v5e, where their
  compiler takes 10.8 of four and 8.7 of 16: 11.7 and 8.0 (1.5 B, a row each).

  Attributes:
    weights: Parameters, float32; adapters too.
    optimizer: Its state.
    gradients: In the compute type, as they leave the layers; those of the
      embedding and the head in float32, before devices add theirs up. Where
      TPUs share weights: a layer's, and what the parts of all layers, in
      float32, are more than `activations`, which they come in the place of.
    copies: Weights in the compute type: all of them, or, where `fsdp` gathers
      them, those of two layers and the head; on TPUs the parts of all, too.
    activations: What the forward pass keeps for the backward pass.
    work: The larger of a chunk of logits with its gradient, and what a layer's
      backward pass makes again.
  """

  weights: int
  optimizer: int
  gradients: int
  copies: int
  activations: int
  work: int

  @property
  def total(self) -> int:
    """Peak memory of a device."""
    return sum(getattr(self, field.name) for field in fields(self))

  def __str__(self) -> str:
    parts = ' + '.join(
      f'{field.name} {getattr(self, field.name) / 2**30:.2f}'
      for field in fields(self)
    )
    return f'{parts} = {self.total / 2**30:.2f}'


def step_memory(
  model: ModelConfig,
  config: MStepConfig,
  mesh: Mesh | AbstractMesh,
  device: Device,
  in_parts: bool = False,
) -> StepMemory:
  """Returns what a step of the M-step takes of each device.

  Args:
    model: Its shape.
    config: Rows are as many and as long as it allows.
    mesh: How parameters and rows are split.
    device: Whose memory it is.
    in_parts: Whether a batch needs more rows than are worked on at a time.
  """
  shapes = jax.eval_shape(lambda: Transformer(model))
  trained, weights = shapes, _bytes(shapes, mesh)
  if config.lora_rank:
    trained = jax.eval_shape(
      lambda m: lora.init_adapters(m, config.lora_rank, jax.random.key(0)),
      shapes,
    )
    weights += _bytes(trained, mesh)
  optimizer = _bytes(abstract_state(config, trained, mesh), mesh)
  size = jnp.dtype(model.dtype).itemsize
  tensor, fsdp = mesh.shape['tensor'], mesh.shape['fsdp']
  ends = (1 if model.tied else 2) * model.vocab * model.width // tensor
  layers = _count(shapes) // tensor - ends
  rows = config.rows
  tokens = rows * config.row_length
  kept, again = _bytes_a_token(model, config, tensor, device)
  chunk = loss.chunk_length(rows, config.row_length, model.vocab)
  activations = tokens * model.layers * kept
  if device.platform == 'tpu' and fsdp > 1:
    # One layer's lie whole; parts, in float32, come as activations go.
    parts = max(0, 4 * layers // fsdp - activations)
    gradients = size * layers // model.layers + parts
    gathered = layers // fsdp + 2 * layers // model.layers
    if device.kind == 'v5e' and fsdp > device.a_host:
      # The head lies in two layouts more (bench/NOTES.md, as below).
      gathered += 2 * model.vocab * model.width // tensor
  else:
    gradients = size * layers // fsdp
    gathered = layers if fsdp == 1 else 2 * layers // model.layers
  gradients += 2 * 4 * model.vocab * model.width // tensor
  if in_parts:
    gradients += _bytes(trained, mesh)  # Their sum, in float32.
  # Of logits, and of their gradient in float32, which TPUs do not keep, and in
  # the compute type.
  logit = size + (4 if device.platform == 'tpu' else 8)
  return StepMemory(
    weights=weights,
    optimizer=optimizer,
    gradients=gradients,
    copies=size * (gathered + model.vocab * model.width // tensor),
    activations=activations,
    work=max(tokens * again, rows * chunk * model.vocab // tensor * logit),
  )


def hand_over_memory(weight_bytes: int, device: Device) -> int:
  """Returns what weights take beside the trainer's, until the sampler has them.

  TPUs hold them nearly twice, before and behind their new layout: compiled for
  v5e, 1.84 to 2.0 times.

  Args:
    weight_bytes: The sampler's weights, on each device.
    device: Of what kind they are.
  """
  return int(weight_bytes * (1.93 if device.platform == 'tpu' else 1))


def count_parameters(model: ModelConfig) -> int:
  """Returns the number of parameters, embedding included (once if tied)."""
  return _count(jax.eval_shape(lambda: Transformer(model)))


def flops_per_token(model: ModelConfig, row_length: int) -> float:
  """Returns model FLOPs of training on one token.

  6 x parameters, and 6 x layers x heads x head width x row length for causal
  attention over whole rows (PaLM, arXiv:2204.02311, appendix B, halved as half
  the scores are masked). It counts neither what is computed twice nor what
  packing and the loss on completions leave out.
  """
  scores = model.layers * model.heads * model.head_width * row_length
  return 6.0 * count_parameters(model) + 6.0 * scores


@dataclass(frozen=True, slots=True)
class Rates:
  """Tokens that one device works on in a second."""

  drawn: float
  trained: float


def rates(
  model: ModelConfig, row_length: int, share_prefixes: bool, device: Device
) -> Rates | None:
  """Returns what to expect of a device, or None where nothing is known of it.

  The measured shape nearest in size is scaled: training by FLOPs a token and
  FLOP/s of the device; sampling by parameters, and by FLOP/s or bandwidth of
  the device, whichever it has less of.
  """
  if not device.flops:
    return None
  size = count_parameters(model)
  parameters, drawn, share = min(
    _MEASURED, key=lambda line: abs(math.log(line[0] / size))
  )
  share = _MEASURED_SHARED if share_prefixes else share
  scale = min(
    device.flops / _MEASURED_ON.flops,
    device.bandwidth / _MEASURED_ON.bandwidth,
  )
  return Rates(
    drawn=drawn * parameters / size * scale,
    trained=share * device.flops / flops_per_token(model, row_length),
  )


def _bytes_a_token(
  model: ModelConfig, config: MStepConfig, tensor: int, device: Device
) -> tuple[int, int]:
  """Returns what a layer keeps of each token, and what it makes again.

  The counts of what nothing made again would hold (17 of the width, 6 of the
  feed-forward width) are fitted to one measurement, of 163 GiB.
  """
  size = jnp.dtype(model.dtype).itemsize
  width, ffn = model.width, model.ffn // tensor
  heads = model.heads // tensor
  queries = heads * model.head_width
  keys = 2 * model.kv_heads * model.head_width // tensor
  everything = size * (17 * width + 6 * ffn)
  matmuls = size * (3 * width + queries + keys + 2 * ffn)
  if device.kind == 'v5e':
    # The compiler keeps the product of gate and up, too, and what goes into
    # attention and into the next layer twice (4x4); for v5p it does not.
    matmuls += size * (ffn + width + queries)
  # Scores and their softmax, float32; of a chunk, they are never kept.
  chunk = attention.query_chunk(config.row_length)
  scores = 8 * heads * chunk
  if attention.kernel_for(
    model, config.row_length, device.platform, config.share_prefixes
  ):
    # Its output, and a sum a head in float32.
    matmuls, scores = matmuls + size * queries + 4 * heads, 0
  if chunk == config.row_length:
    everything, scores = everything + scores, 0
  kept = {'none': everything, 'matmuls': matmuls, 'full': size * width}
  kept = kept[config.remat]
  return kept, everything - kept + scores


def _bytes(tree: Any, mesh: Mesh | AbstractMesh) -> int:
  """Returns the bytes of a tree of shapes on each device."""

  def one(path: tuple[Any, ...], leaf: Any) -> int:
    place = getattr(leaf, 'sharding', None) or jax.sharding.NamedSharding(
      mesh, sharding.spec(sharding.leaf_name(path), len(leaf.shape))
    )
    return math.prod(place.shard_shape(leaf.shape)) * leaf.dtype.itemsize

  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return sum(one(path, leaf) for path, leaf in leaves)


def _count(tree: Any) -> int:
  return sum(leaf.size for leaf in jax.tree.leaves(tree))
