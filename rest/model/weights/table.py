"""Which tensors of a checkpoint make up which leaf of the model."""

import itertools
import math
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import jax
import numpy as np

from rest.model.sharding import leaf_name
from rest.model.transformer import ModelConfig, Transformer


class Part(NamedTuple):
  """A tensor of a checkpoint, and which part of a leaf it is.

  Attributes:
    tensor: Its name; '{}' stands for the layer.
    letters: Its axes as the leaf has them, in the file's order; a comma stands
      between the file's own axes.
    fused: Its place on the leaf's axis P or C, where the leaf fuses tensors.
  """

  tensor: str
  letters: str
  fused: int | slice | None = None

  @property
  def axes(self) -> str:
    """Its axes in the file's order."""
    return self.letters.replace(',', '')

  def to_leaf(self, letters: str) -> list[int]:
    """Returns the transposition of `axes` into the order of a leaf's."""
    return [self.axes.index(axis) for axis in letters if axis in self.axes]

  def place(self, letters: str) -> tuple[int | slice | None, ...]:
    """Returns where it is in a leaf with these axes."""
    return tuple(
      self.fused if axis in 'PC' else slice(None) for axis in letters
    )


def leaf_parts(config: ModelConfig) -> dict[str, tuple[Part, ...]]:
  """Returns the tensors of each leaf, by leaf name."""
  layer, queries = 'model.layers.{}.', slice(0, config.groups)
  attn, ffn = layer + 'self_attn.', layer + 'mlp.'
  table = {
    'embed_VD': (Part('model.embed_tokens.weight', 'V,D'),),
    'attn_norm_D': (Part(layer + 'input_layernorm.weight', 'D'),),
    'qkv_DKPH': (
      Part(attn + 'q_proj.weight', 'KPH,D', queries),
      Part(attn + 'k_proj.weight', 'KH,D', -2),
      Part(attn + 'v_proj.weight', 'KH,D', -1),
    ),
    'qkv_bias_KPH': (
      Part(attn + 'q_proj.bias', 'KPH', queries),
      Part(attn + 'k_proj.bias', 'KH', -2),
      Part(attn + 'v_proj.bias', 'KH', -1),
    ),
    'q_norm_H': (Part(attn + 'q_norm.weight', 'H'),),
    'k_norm_H': (Part(attn + 'k_norm.weight', 'H'),),
    'q_norm_KGH': (Part(attn + 'q_norm.weight', 'KGH'),),
    'k_norm_KH': (Part(attn + 'k_norm.weight', 'KH'),),
    'o_KGHD': (Part(attn + 'o_proj.weight', 'D,KGH'),),
    'ffn_norm_D': (Part(layer + 'post_attention_layernorm.weight', 'D'),),
    'gate_up_DCF': (
      Part(ffn + 'gate_proj.weight', 'F,D', 0),
      Part(ffn + 'up_proj.weight', 'F,D', 1),
    ),
    'down_FD': (Part(ffn + 'down_proj.weight', 'D,F'),),
    'final_norm_D': (Part('model.norm.weight', 'D'),),
    'head_VD': (Part('lm_head.weight', 'V,D'),),
  }
  if config.post_norms or config.late_norms:
    table |= {
      'attn_post_norm_D': table['ffn_norm_D'],
      'ffn_norm_D': (Part(layer + 'pre_feedforward_layernorm.weight', 'D'),),
      'ffn_post_norm_D': (
        Part(layer + 'post_feedforward_layernorm.weight', 'D'),
      ),
    }
  model = jax.eval_shape(lambda: Transformer(config))
  paths = jax.tree_util.tree_flatten_with_path(model)[0]
  return {name: table[name] for name in (leaf_name(p) for p, _ in paths)}


def axis_sizes(config: ModelConfig) -> dict[str, int]:
  """Returns the length of each axis of a tensor in the file, by letter."""
  return {
    'V': config.vocab,
    'D': config.width,
    'K': config.kv_heads,
    'P': config.groups,  # Of the fused axis, only queries have it.
    'G': config.groups,
    'H': config.head_width,
    'F': config.ffn,
  }


def list_tensors(
  config: ModelConfig,
) -> Iterator[tuple[str, str, int | None, Part]]:
  """Yields (name in the file, leaf name, layer, part), one leaf at a time."""
  table = leaf_parts(config)
  stacked = {k: v for k, v in table.items() if '{}' in v[0].tensor}
  for leaf, parts in table.items():
    if leaf not in stacked:
      yield parts[0].tensor, leaf, None, parts[0]
  for layer in range(config.layers):
    for leaf, parts in stacked.items():
      for part in parts:
        yield part.tensor.format(layer), leaf, layer, part


def fusions(names: Iterable[str]) -> dict[str, list[str]]:
  """Returns the parts of each tensor in files that fuse projections."""

  def whole(name: str) -> str:
    name = re.sub(r'\b[qkv]_proj\b', 'qkv_proj', name)
    return re.sub(r'\b(gate|up)_proj\b', 'gate_up_proj', name)

  groups = itertools.groupby(names, whole)
  return {name: list(parts) for name, parts in groups}


def fuse(
  shapes: dict[str, tuple[int, ...]], tensors: Iterator[np.ndarray]
) -> tuple[dict[str, tuple[int, ...]], Iterator[np.ndarray]]:
  """Returns shapes and tensors as files have them that fuse projections."""
  groups = fusions(shapes)
  wholes = {
    name: (sum(shapes[part][0] for part in parts), *shapes[parts[0]][1:])
    for name, parts in groups.items()
  }
  return wholes, (
    np.concatenate([next(tensors) for _ in parts]) for parts in groups.values()
  )


def file_shape(part: Part, config: ModelConfig) -> tuple[int, ...]:
  """Returns the shape of a tensor in the file."""
  sizes = axis_sizes(config)
  return tuple(
    math.prod(sizes[letter] for letter in group)
    for group in part.letters.split(',')
  )
