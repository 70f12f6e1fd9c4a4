"""Hugging Face checkpoints in and out: config.json and safetensors.

Tensors are streamed: reading holds the model plus one leaf of this process's
share, writing holds the model plus one layer's share of a leaf.
"""

import dataclasses
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding

from rest.model import tokenizer
from rest.model.sharding import PARAMETERS, leaf_name, shardings
from rest.model.transformer import ModelConfig, Transformer
from rest.model.weights import config as config_json
from rest.model.weights import rotary, safetensors
from rest.model.weights.table import (
  Part,
  axis_sizes,
  file_shape,
  fuse,
  fusions,
  leaf_parts,
  list_tensors,
)

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

_EMBED, _HEAD = 'model.embed_tokens.weight', 'lm_head.weight'

_BLOCK = 1 << 22  # Numbers that a thread reads at a time.
# (start, stop) of each axis of an array.
_Bounds = tuple[tuple[int, int], ...]


def read_config(path: str, dtype: str, longest: int = 0) -> ModelConfig:
  """Returns the model's shape from the config.json of a checkpoint.

  Where it ties the output head to the embedding, but the files hold both and
  they differ, they are two, as in transformers.

  Args:
    path: A directory.
    dtype: Of matrix products, such as 'bfloat16'.
    longest: Longest sequence that is planned, in tokens: longrope has factors
      for short and for long ones. 0: as long as the model was made for.

  Raises:
    FileNotFoundError: There is no such directory, or no config.json in it.
    ValueError: The architecture or one of its options is not supported.
  """
  raw = config_json.read(path)
  config = config_json.parse(raw, dtype, f'{path}/config.json')
  config = rotary.choose_factors(config, longest)
  if config.tied and not _is_tied(path):
    return dataclasses.replace(config, tied=False)
  return config


def check(path: str, config: ModelConfig) -> dict[str, safetensors.Tensor]:
  """Returns the tensors by name, all there, whole, and of the right shape.

  Reads headers only, unless a tensor is there that should not be: it may be a
  second copy of another, or a bias of zeros.

  Raises:
    FileNotFoundError: There are no weights, or a shard of them is missing.
    ValueError: Something in them is unsupported, missing, too much, of the
      wrong shape, or truncated.
  """
  found = _named_tensors(path)
  if config.tied:  # Some files hold the embedding twice, or as the head alone.
    head = found.pop(_HEAD, None)
    if head is not None:
      found.setdefault(_EMBED, head)
  shapes = {
    name: file_shape(part, config) for name, _, _, part in list_tensors(config)
  }
  if config.fused:
    found = _parted(found, shapes)
  extra = {
    name
    for name in found.keys() - shapes.keys()
    # A bias of zeros, that the family has not, changes nothing.
    if not (name.endswith('.bias') and safetensors.is_zero(found[name]))
  }
  for names, what in ((shapes.keys() - found.keys(), 'lacks'), (extra, 'has')):
    if names:
      raise ValueError(
        f'{path} {what} {len(names)} tensors that its config.json does '
        f'{"" if what == "lacks" else "not "}call for: '
        f'{", ".join(sorted(names)[:5])}.'
      )
  for name, shape in shapes.items():
    safetensors.check_kind(name, found[name])
    if found[name].shape != shape:
      raise ValueError(
        f'{found[name].file}: {name} has shape {found[name].shape}; '
        f'config.json calls for {shape}.'
      )
  return found


def load(path: str, mesh: Mesh, dtype: str, longest: int = 0) -> Transformer:
  """Reads a checkpoint straight onto the mesh; parameters are float32.

  Args:
    path: A directory with config.json and model.safetensors, or its shards
      with model.safetensors.index.json.
    mesh: Where the parameters go, as `rest.model.sharding.shardings` says.
    dtype: Of matrix products, such as 'bfloat16'.
    longest: As in `read_config`.

  Raises:
    FileNotFoundError, ValueError: `read_config` or `check` refuses it, or the
      mesh does not divide an axis.
  """
  config = read_config(path, dtype, longest)
  _check_divides(config, mesh)
  tensors = check(path, config)
  model = jax.eval_shape(lambda: Transformer(config))
  leaves, tree = jax.tree_util.tree_flatten_with_path(model)
  places = jax.tree.leaves(shardings(model, mesh))
  read = [
    _read_leaf(tensors, config, leaf_name(key), leaf.shape, place)
    for (key, leaf), place in zip(leaves, places, strict=True)
  ]
  return jax.tree.unflatten(tree, read)


def save(
  model: Transformer,
  path: str,
  source: str | None,
  dtype: str = 'float32',
  shard_bytes: int = 5 << 30,
  texts: Mapping[str, str] | None = None,
) -> None:
  """Writes a directory that `transformers` loads; what was there is replaced.

  Every process must call it; the first one writes, and all return when it has.
  A local directory appears whole or not at all. On gs://, where directories
  cannot be renamed, config.json comes last: without one it is no checkpoint.

  Args:
    model: With stacked layers.
    path: The directory to write.
    source: A checkpoint whose tokenizer, and ids of special tokens, go along.
    dtype: Of the tensors in the files.
    shard_bytes: Most bytes of tensors in one file.
    texts: Further files by name, such as README.md; they take the place of
      what `source` has.

  Raises:
    ValueError: No supported architecture has this model's switches.
  """
  settings = config_json.describe(model.config, dtype)
  if source is not None:
    settings |= _special_ids(source)
  shapes = {
    name: file_shape(part, model.config)
    for name, _, _, part in list_tensors(model.config)
  }
  tensors = _gather_tensors(model, dtype)
  if model.config.fused:
    shapes, tensors = fuse(shapes, tensors)
  if jax.process_index() == 0:
    final = target = epath.Path(path)
    if '://' not in path:
      target = final.with_name(final.name + '.partial')
    _clear(target)
    target.mkdir(parents=True)
    safetensors.write(target, shapes, tensors, dtype, shard_bytes)
    if source is not None:
      _copy_tokenizer(epath.Path(source), target)
    for name, text in (texts or {}).items():
      (target / name).write_text(text)
    text = json.dumps(settings, indent=2) + '\n'
    (target / 'config.json').write_text(text)
    if target != final:
      _clear(final)
      target.rename(final)
  for _ in tensors:  # Gathering takes every process.
    pass
  multihost_utils.sync_global_devices(f'saved {path}')


def _clear(folder: epath.Path) -> None:
  if folder.exists():
    folder.rmtree()


def _copy_tokenizer(source: epath.Path, target: epath.Path) -> None:
  for name in _TOKENIZER_FILES:
    if (source / name).exists():
      (source / name).copy(target / name)


def _special_ids(source: str) -> dict[str, Any]:
  """Returns the ids of special tokens, as config.json spells them."""
  ids = tokenizer.load(source)
  eos = ids.eos[0] if len(ids.eos) == 1 else list(ids.eos)
  # No pad_token_id: torch would not train that row of the embedding.
  return {'bos_token_id': ids.bos, 'eos_token_id': eos}


def _is_tied(path: str) -> bool:
  """Whether the files, where they are there, let a tied head be tied."""
  try:
    found = _named_tensors(path)
  except FileNotFoundError:  # A plan needs no weights.
    return True
  pair = [found[name] for name in (_EMBED, _HEAD) if name in found]
  return len(pair) < 2 or safetensors.same(*pair)


def _named_tensors(path: str) -> dict[str, safetensors.Tensor]:
  """Returns the tensors of the text model, by the names that we know."""
  found: dict[str, safetensors.Tensor] = {}
  for name, tensor in safetensors.index(path).items():
    if _IGNORED.fullmatch(name):
      continue
    known = _PREFIX.sub('', name)
    if known in found and not safetensors.same(found[known], tensor):
      raise ValueError(
        f'{tensor.file}: {name} and another tensor that stands for {known} '
        'differ.'
      )
    found[known] = tensor
  return found


def _parted(
  found: dict[str, safetensors.Tensor], shapes: dict[str, tuple[int, ...]]
) -> dict[str, safetensors.Tensor]:
  """Returns the tensors, those of fused projections as their parts.

  Parts are rows of the whole, one after another: of 8 queries', 4 keys' and 4
  values' rows in 'qkv_proj', 'k_proj' is rows 8 to 12 and their bytes.
  """
  parted = dict(found)
  for name, parts in fusions(shapes).items():
    if name not in found or len(parts) == 1:
      continue
    whole = parted.pop(name)
    rows = sum(shapes[part][0] for part in parts)
    if whole.shape[:1] != (rows,):
      raise ValueError(
        f'{whole.file}: {name} has shape {whole.shape}; config.json calls for '
        f'{rows} rows.'
      )
    row, start = (whole.stop - whole.start) // rows, whole.start
    for part in parts:
      stop = start + row * shapes[part][0]
      shape = (shapes[part][0], *whole.shape[1:])
      parted[part] = dataclasses.replace(
        whole, shape=shape, start=start, stop=stop
      )
      start = stop
  return parted


def _read_leaf(
  tensors: dict[str, safetensors.Tensor],
  config: ModelConfig,
  leaf: str,
  shape: tuple[int, ...],
  place: NamedSharding,
) -> jax.Array:
  """Returns one leaf; each tensor is read once, in rows that we need."""
  parts, sizes = leaf_parts(config)[leaf], axis_sizes(config)
  letters = leaf.rsplit('_', 1)[-1]
  stacked = len(shape) > len(letters)

  def key(index: Any) -> _Bounds:  # Slices; JAX says Index | None.
    return tuple(s.indices(n)[:2] for s, n in zip(index, shape, strict=True))

  indices = place.addressable_devices_indices_map(shape).values()
  kinds = {tensors[part.tensor.format(0)].dtype for part in parts}
  # What has 16 bits is converted on the devices, which are quicker at it.
  is_short = len(kinds) == 1 and max(kind.itemsize for kind in kinds) == 2
  dtype = kinds.pop() if is_short else np.dtype(np.float32)
  buffers = {
    bounds: np.empty([stop - start for start, stop in bounds], dtype)
    for bounds in {key(index) for index in indices if index is not None}
  }

  def fill(layer: int, part: Part, block: range) -> None:
    views = {
      bounds[stacked:]: buffer[layer] if stacked else buffer
      for bounds, buffer in buffers.items()
    }
    tensor = tensors[part.tensor.format(layer)]
    _fill(views, letters, part, tensor, sizes, block)

  with ThreadPoolExecutor() as pool:
    held = [bounds[stacked:] for bounds in buffers]
    filled = [
      pool.submit(fill, layer, part, block)
      for layer in range(shape[0] if stacked else 1)
      for part in parts
      for block in _blocks(part, sizes, letters, held)
    ]
    for one in filled:
      one.result()
  array = jax.make_array_from_callback(
    shape, place, lambda index: buffers[key(index)]
  )
  return jax.jit(_in_float32, out_shardings=place)(array)


def _in_float32(array: jax.Array) -> jax.Array:
  return array.astype(jnp.float32)


def _blocks(
  part: Part, sizes: dict[str, int], letters: str, held: Sequence[_Bounds]
) -> Iterator[range]:
  """Yields what threads read of a tensor's first axis, which is `letters`'s."""
  first, *others = part.axes
  spans = [bounds[letters.index(first)] for bounds in held]
  start, stop = min(a for a, _ in spans), max(b for _, b in spans)
  step = max(1, _BLOCK // math.prod(sizes[axis] for axis in others))
  for at in range(start, stop, step):
    yield range(at, min(at + step, stop))


def _fill(
  views: dict[_Bounds, np.ndarray],
  letters: str,
  part: Part,
  tensor: safetensors.Tensor,
  sizes: dict[str, int],
  block: range,
) -> None:
  """Copies a block of a tensor into the slices that this process holds."""
  first, *others = part.axes
  unit = tensor.shape[0] // sizes[first]
  rows = safetensors.read_rows(tensor, block.start * unit, block.stop * unit)
  rows = rows.reshape(len(block), *(sizes[axis] for axis in others))
  rows = rows.transpose(part.to_leaf(letters))
  for bounds, view in views.items():
    there: list[slice] = []
    here: list[slice] = []
    for axis, (low, high) in zip(letters, bounds, strict=True):
      if axis not in part.axes:
        continue
      if axis == 'P':  # A fused axis is whole everywhere.
        low, high = 0, sizes[axis]
      known = block if axis == first else range(sizes[axis])
      start, stop = max(low, known.start), min(high, known.stop)
      there.append(slice(start - low, max(start, stop) - low))
      here.append(slice(start - known.start, max(start, stop) - known.start))
    into, given = view[part.place(letters)][tuple(there)], rows[tuple(here)]
    if into.dtype == given.dtype and into.itemsize == 2:
      into, given = into.view(np.uint16), given.view(np.uint16)  # Quicker.
    into[...] = given


def _check_divides(config: ModelConfig, mesh: Mesh) -> None:
  sizes = {
    'num_key_value_heads': ('K', config.kv_heads),
    'hidden_size': ('D', config.width),
    'intermediate_size': ('F', config.ffn),
    'vocab_size': ('V', config.vocab),
  }
  for field, (letter, size) in sizes.items():
    axis = PARAMETERS[letter]
    if size % mesh.shape[axis]:
      raise ValueError(
        f'mesh.{axis}={mesh.shape[axis]} does not divide the {field}={size} of '
        'the checkpoint.'
      )


@partial(jax.jit, static_argnames='dtype')
def _take(leaf: jax.Array, layer: int | None, dtype: str) -> jax.Array:
  return (leaf if layer is None else leaf[layer]).astype(dtype)


def _gather_tensors(model: Transformer, dtype: str) -> Iterator[np.ndarray]:
  """Yields the tensors in the order of `list_tensors`, whole on the host."""
  leaves = {
    leaf_name(path): leaf
    for path, leaf in jax.tree_util.tree_flatten_with_path(model)[0]
  }
  held, array = None, np.empty(0)
  for _, name, layer, part in list_tensors(model.config):
    if held != (name, layer):  # Fused tensors come from one array.
      array = _fetch(_take(leaves[name], layer, dtype))
      held = name, layer
    letters = name.rsplit('_', 1)[-1]
    to_file = np.argsort(part.to_leaf(letters))
    tensor = array[part.place(letters)].transpose(to_file)
    yield tensor.reshape(file_shape(part, model.config))


def _fetch(array: jax.Array) -> np.ndarray:
  """Returns the whole array on this host, wherever its parts are."""
  if array.is_fully_addressable:
    return np.asarray(array)
  return np.asarray(multihost_utils.process_allgather(array, tiled=True))
