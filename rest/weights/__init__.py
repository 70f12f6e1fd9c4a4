"""Hugging Face checkpoints in and out: config.json and safetensors.

Tensors are streamed: reading holds the model plus one leaf of this process's
share, writing holds the model plus one tensor. `_table` says which tensors of
a checkpoint make up which leaf of the model, for both directions.
"""

import json
import math
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding

from rest import tokenizer
from rest.model import ModelConfig, Transformer
from rest.sharding import leaf_name, shardings
from rest.weights import config as config_json
from rest.weights import safetensors

_TOKENIZER_FILES = (
  'added_tokens.json',
  'chat_template.jinja',
  'generation_config.json',
  'merges.txt',
  'special_tokens_map.json',
  'tokenizer.json',
  'tokenizer.model',
  'tokenizer_config.json',
  'vocab.json',
)

# Old Llama files hold the rotary frequencies; image and text models hold more
# than we run.
_IGNORED = re.compile(
  r'.*\.rotary_emb\.inv_freq|(model\.)?(vision_tower|multi_modal_projector)\..*'
)
_PREFIX = re.compile(
  r'language_model\.(?=model|lm_head)|(?<=model\.)language_model\.'
)


# (start, stop) of each axis of an array.
_Bounds = tuple[tuple[int, int], ...]


class _Part(NamedTuple):
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


def read_config(path: str, dtype: str) -> ModelConfig:
  """Returns the model's shape from the config.json of a checkpoint.

  Args:
    path: A directory.
    dtype: Of matrix products, such as 'bfloat16'.

  Raises:
    FileNotFoundError: There is no such directory, or no config.json in it.
    ValueError: The architecture or one of its options is not supported.
  """
  return config_json.parse(config_json.read(path), dtype, f'{path}/config.json')


def load(
  path: str, mesh: Mesh, dtype: str, param_dtype: str = 'float32'
) -> Transformer:
  """Reads a checkpoint straight onto the mesh.

  Args:
    path: A directory with config.json and model.safetensors, or its shards
      with model.safetensors.index.json.
    mesh: Where the parameters go, as `rest.sharding.shardings` says.
    dtype: Of matrix products, such as 'bfloat16'.
    param_dtype: Of the parameters.

  Raises:
    FileNotFoundError: The directory, or a file that should be there, is not.
    ValueError: Something in the checkpoint is unsupported, missing, too much,
      of the wrong shape, or truncated; or the mesh does not divide an axis.
  """
  config = read_config(path, dtype)
  tensors = _find_tensors(path, config)
  model = jax.eval_shape(lambda: Transformer(config))
  leaves, tree = jax.tree_util.tree_flatten_with_path(model)
  places = jax.tree.leaves(shardings(model, mesh))
  read = [
    _read_leaf(
      tensors, config, leaf_name(key), leaf.shape, place, jnp.dtype(param_dtype)
    )
    for (key, leaf), place in zip(leaves, places, strict=True)
  ]
  return jax.tree.unflatten(tree, read)


def save(
  model: Transformer,
  path: str,
  source: str | None,
  dtype: str = 'float32',
  shard_bytes: int = 5 << 30,
) -> None:
  """Writes a directory that `transformers` loads; what was there is replaced.

  Every process must call it; the first one writes. A local directory appears
  whole or not at all. On gs://, where directories cannot be renamed,
  config.json comes last: a directory without one is not a checkpoint.

  Args:
    model: With stacked layers.
    path: The directory to write.
    source: A checkpoint whose tokenizer, and ids of special tokens, go along.
    dtype: Of the tensors in the files.
    shard_bytes: Most bytes of tensors in one file.

  Raises:
    ValueError: No supported architecture has this model's switches.
  """
  settings = config_json.describe(model.config, dtype)
  tensors = _gather_tensors(model, dtype)
  if jax.process_index() != 0:
    for _ in tensors:  # Gathering takes every process.
      pass
    return
  final = target = epath.Path(path)
  if '://' not in path:
    target = final.with_name(final.name + '.partial')
  if target.exists():
    target.rmtree()
  target.mkdir(parents=True)
  if source is not None:
    settings |= _special_ids(source)
    for name in _TOKENIZER_FILES:
      if (epath.Path(source) / name).exists():
        (epath.Path(source) / name).copy(target / name)
  shapes = {
    name: _file_shape(part, model.config)
    for name, _, _, part in _list_tensors(model.config)
  }
  safetensors.write(target, shapes, tensors, dtype, shard_bytes)
  text = json.dumps(settings, indent=2) + '\n'
  (target / 'config.json').write_text(text)
  if target != final:
    if final.exists():
      final.rmtree()
    target.rename(final)


def _special_ids(source: str) -> dict[str, Any]:
  """Returns the ids of special tokens, as config.json spells them."""
  ids = tokenizer.load(source)
  eos = ids.eos[0] if len(ids.eos) == 1 else list(ids.eos)
  return {'bos_token_id': ids.bos, 'eos_token_id': eos, 'pad_token_id': ids.pad}


def _table(config: ModelConfig) -> dict[str, tuple[_Part, ...]]:
  """Returns the tensors of each leaf, by leaf name."""
  layer, queries = 'model.layers.{}.', slice(0, config.groups)
  attn, ffn = layer + 'self_attn.', layer + 'mlp.'
  table = {
    'embed_VD': (_Part('model.embed_tokens.weight', 'V,D'),),
    'attn_norm_D': (_Part(layer + 'input_layernorm.weight', 'D'),),
    'qkv_DKPH': (
      _Part(attn + 'q_proj.weight', 'KPH,D', queries),
      _Part(attn + 'k_proj.weight', 'KH,D', -2),
      _Part(attn + 'v_proj.weight', 'KH,D', -1),
    ),
    'qkv_bias_KPH': (
      _Part(attn + 'q_proj.bias', 'KPH', queries),
      _Part(attn + 'k_proj.bias', 'KH', -2),
      _Part(attn + 'v_proj.bias', 'KH', -1),
    ),
    'q_norm_H': (_Part(attn + 'q_norm.weight', 'H'),),
    'k_norm_H': (_Part(attn + 'k_norm.weight', 'H'),),
    'o_KGHD': (_Part(attn + 'o_proj.weight', 'D,KGH'),),
    'ffn_norm_D': (_Part(layer + 'post_attention_layernorm.weight', 'D'),),
    'gate_up_DCF': (
      _Part(ffn + 'gate_proj.weight', 'F,D', 0),
      _Part(ffn + 'up_proj.weight', 'F,D', 1),
    ),
    'down_FD': (_Part(ffn + 'down_proj.weight', 'D,F'),),
    'final_norm_D': (_Part('model.norm.weight', 'D'),),
    'head_VD': (_Part('lm_head.weight', 'V,D'),),
  }
  if config.post_norms:
    table |= {
      'attn_post_norm_D': table['ffn_norm_D'],
      'ffn_norm_D': (_Part(layer + 'pre_feedforward_layernorm.weight', 'D'),),
      'ffn_post_norm_D': (
        _Part(layer + 'post_feedforward_layernorm.weight', 'D'),
      ),
    }
  model = jax.eval_shape(lambda: Transformer(config))
  paths = jax.tree_util.tree_flatten_with_path(model)[0]
  return {name: table[name] for name in (leaf_name(p) for p, _ in paths)}


def _sizes(config: ModelConfig) -> dict[str, int]:
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


def _list_tensors(
  config: ModelConfig,
) -> Iterator[tuple[str, str, int | None, _Part]]:
  """Yields (name in the file, leaf name, layer, part) of every tensor."""
  table = _table(config)
  stacked = {k: v for k, v in table.items() if '{}' in v[0].tensor}
  for leaf, parts in table.items():
    if leaf not in stacked:
      yield parts[0].tensor, leaf, None, parts[0]
  for layer in range(config.layers):
    for leaf, parts in stacked.items():
      for part in parts:
        yield part.tensor.format(layer), leaf, layer, part


def _file_shape(part: _Part, config: ModelConfig) -> tuple[int, ...]:
  sizes = _sizes(config)
  return tuple(
    math.prod(sizes[letter] for letter in group)
    for group in part.letters.split(',')
  )


def _find_tensors(
  path: str, config: ModelConfig
) -> dict[str, safetensors.Tensor]:
  """Returns the tensors by name, all there and of the right shape."""
  found = {
    _PREFIX.sub('', name): tensor
    for name, tensor in safetensors.index(path).items()
    if not _IGNORED.fullmatch(name)
  }
  shapes = {
    name: _file_shape(part, config)
    for name, _, _, part in _list_tensors(config)
  }
  extra = found.keys() - shapes.keys()
  if config.tied:
    extra -= {'lm_head.weight'}  # Some files hold the embedding twice.
  for names, what in ((shapes.keys() - found.keys(), 'lacks'), (extra, 'has')):
    if names:
      raise ValueError(
        f'{path} {what} {len(names)} tensors that its config.json does '
        f'{"" if what == "lacks" else "not "}call for: '
        f'{", ".join(sorted(names)[:5])}.'
      )
  for name, shape in shapes.items():
    if found[name].shape != shape:
      raise ValueError(
        f'{found[name].file}: {name} has shape {found[name].shape}; '
        f'config.json calls for {shape}.'
      )
  return found


def _read_leaf(
  tensors: dict[str, safetensors.Tensor],
  config: ModelConfig,
  leaf: str,
  shape: tuple[int, ...],
  place: NamedSharding,
  dtype: np.dtype[Any],
) -> jax.Array:
  """Returns one leaf; each tensor is read once, in rows that we need."""
  _check_divides(leaf, shape, place)
  parts = _table(config)[leaf]
  letters = leaf.rsplit('_', 1)[-1]
  stacked = len(shape) > len(letters)

  def key(index: Any) -> _Bounds:  # Slices; JAX says Index | None.
    return tuple(s.indices(n)[:2] for s, n in zip(index, shape, strict=True))

  indices = place.addressable_devices_indices_map(shape).values()
  buffers = {
    bounds: np.empty([stop - start for start, stop in bounds], dtype)
    for bounds in {key(index) for index in indices if index is not None}
  }

  def fill(layer: int) -> None:
    views = {
      bounds[stacked:]: buffer[layer] if stacked else buffer
      for bounds, buffer in buffers.items()
    }
    for part in parts:
      tensor = tensors[part.tensor.format(layer)]
      _fill(views, letters, part, tensor, _sizes(config))

  with ThreadPoolExecutor() as pool:
    list(pool.map(fill, range(shape[0] if stacked else 1)))
  return jax.make_array_from_callback(
    shape, place, lambda index: buffers[key(index)]
  )


def _fill(
  views: dict[_Bounds, np.ndarray],
  letters: str,
  part: _Part,
  tensor: safetensors.Tensor,
  sizes: dict[str, int],
) -> None:
  """Copies a tensor into the slices of a leaf that this process holds."""
  axes = part.letters.replace(',', '')
  spans = [bounds[letters.index(axes[0])] for bounds in views]
  start, stop = min(a for a, _ in spans), max(b for _, b in spans)
  unit = tensor.shape[0] // sizes[axes[0]]
  rows = safetensors.read_rows(tensor, start * unit, stop * unit)
  rows = rows.reshape(stop - start, *(sizes[axis] for axis in axes[1:]))
  order = [axis for axis in letters if axis in axes]
  rows = rows.transpose([axes.index(axis) for axis in order])
  to = tuple(part.fused if axis in 'PC' else slice(None) for axis in letters)
  for bounds, view in views.items():
    inside = []
    for axis in order:
      low, high = bounds[letters.index(axis)]
      offset = start if axis == axes[0] else 0
      inside.append(
        slice(None) if axis == 'P' else slice(low - offset, high - offset)
      )
    view[to] = rows[tuple(inside)]


def _check_divides(
  leaf: str, shape: tuple[int, ...], place: NamedSharding
) -> None:
  for size, axis in zip(shape, place.spec, strict=True):
    if axis is not None and size % place.mesh.shape[axis]:
      raise ValueError(
        f'mesh.{axis}={place.mesh.shape[axis]} does not divide an axis of '
        f'{size} of {leaf}, whose shape is {shape}.'
      )


@partial(jax.jit, static_argnames='dtype')
def _take(leaf: jax.Array, layer: jax.Array, dtype: str) -> jax.Array:
  return jax.lax.dynamic_index_in_dim(leaf, layer, keepdims=False).astype(dtype)


def _gather_tensors(model: Transformer, dtype: str) -> Iterator[np.ndarray]:
  """Yields the tensors in the order of `_list_tensors`, whole on the host."""
  leaves = {
    leaf_name(path): leaf
    for path, leaf in jax.tree_util.tree_flatten_with_path(model)[0]
  }
  held, array = None, np.empty(0)
  for _, name, layer, part in _list_tensors(model.config):
    if held != (name, layer):
      leaf = (
        leaves[name].astype(dtype)
        if layer is None
        else _take(leaves[name], layer, dtype)
      )
      array, held = _fetch(leaf), (name, layer)
    letters = name.rsplit('_', 1)[-1]
    index = tuple(
      part.fused if axis in 'PC' else slice(None) for axis in letters
    )
    axes = part.letters.replace(',', '')
    order = [axis for axis in letters if axis in axes]
    tensor = array[index].transpose([order.index(axis) for axis in axes])
    yield tensor.reshape(_file_shape(part, model.config))


def _fetch(array: jax.Array) -> np.ndarray:
  """Returns the whole array on this host, wherever its parts are."""
  if array.is_fully_addressable:
    return np.asarray(array)
  return np.asarray(multihost_utils.process_allgather(array, tiled=True))
