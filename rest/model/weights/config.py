"""config.json of Hugging Face checkpoints, to our `ModelConfig` and back.

Reads what the families published and what newer `transformers` versions write
(`rope_scaling` or `rope_parameters`, `sliding_window_pattern` or
`layer_types`); writes the former, which all versions read.
"""

import json
from typing import Any

from etils import epath

from rest.model.rope import RopeScaling
from rest.model.transformer import ModelConfig
from rest.model.weights.families import (
  FIELDS,
  MODEL_TYPES,
  NESTED,
  OFF,
  REFUSED,
  SWITCHES,
)

# All layers have the window, or none.
_ONE_WINDOW = ('MistralForCausalLM', 'Phi3ForCausalLM')


def read(path: str) -> dict[str, Any]:
  """Returns the config.json of a checkpoint directory, the text half merged.

  Raises:
    FileNotFoundError: There is no such directory, or no config.json in it.
    ValueError: It is not JSON, or names no supported architecture.
  """
  folder = epath.Path(path)
  if not folder.is_dir():
    raise FileNotFoundError(f'There is no checkpoint directory {path}.')
  if not (folder / 'config.json').exists():
    raise FileNotFoundError(f'{path} holds no config.json.')
  try:
    raw = dict(json.loads((folder / 'config.json').read_text()))
  except (RecursionError, TypeError, ValueError) as error:
    raise ValueError(f'{path}/config.json is not JSON: {error}.') from error
  names = raw.get('architectures')
  supported = [*SWITCHES, *NESTED]
  if not isinstance(names, list) or not names or names[0] not in supported:
    raise ValueError(
      f'{path}/config.json: architectures is {names}; supported are '
      f'{", ".join(supported)}.'
    )
  if names[0] in NESTED:
    raw = {
      **raw,
      **raw.get('text_config', {}),
      'architectures': [NESTED[names[0]]],
      'tie_word_embeddings': raw.get('tie_word_embeddings', True),
    }
  return raw


def parse(raw: dict[str, Any], dtype: str, where: str) -> ModelConfig:
  """Returns the model's shape.

  Args:
    raw: A config.json, as `read` returns it.
    dtype: Of matrix products.
    where: What to call it in errors.

  Raises:
    ValueError: A field is missing or wrong, or an option is not supported.
  """
  architecture = raw['architectures'][0]
  for key in REFUSED:
    if raw.get(key):
      raise ValueError(f'{where}: {key}={raw[key]!r} is not supported.')
  fields = {
    key: value
    if (value := raw.get(key)) is not None or key in raw.keys() & OFF
    else default
    for key, default in FIELDS[architecture].items()
  }
  try:
    shape: dict[str, Any] = _shape(fields, architecture)
    shape |= SWITCHES[architecture]
  except KeyError as error:
    raise ValueError(f'{where} has no field {error}.') from error
  except ValueError as error:
    raise ValueError(f'{where}: {error}') from error
  return ModelConfig(dtype=dtype, **shape)


def describe(config: ModelConfig, dtype: str) -> dict[str, Any]:
  """Returns the config.json of a model, without ids of special tokens.

  Raises:
    ValueError: No supported architecture has this model's switches.
  """
  architecture = _architecture(config)
  raw = {
    'architectures': [architecture],
    'model_type': MODEL_TYPES[architecture],
    'torch_dtype': dtype,
    'vocab_size': config.vocab,
    'hidden_size': config.width,
    'num_hidden_layers': config.layers,
    'num_attention_heads': config.heads,
    'num_key_value_heads': config.kv_heads,
    'head_dim': config.head_width,
    'intermediate_size': config.ffn,
    'max_position_embeddings': config.context,
    'rope_theta': config.rope_theta,
    'rope_scaling': _describe_scaling(config.rope_scaling),
    'rms_norm_eps': config.norm_eps,
    'tie_word_embeddings': config.tied,
    'hidden_act': 'silu',
    'pad_token_id': None,  # Some defaults are not in a small vocabulary.
  }
  if config.post_norms:
    scale = config.query_scale or config.head_width**-0.5
    raw |= {
      'hidden_activation': 'gelu_pytorch_tanh',
      'query_pre_attn_scalar': round(scale**-2),
      'attn_logit_softcapping': config.attention_softcap or None,
      'final_logit_softcapping': config.logits_softcap or None,
    }
  if config.rotary_width:
    raw['partial_rotary_factor'] = config.rotary_width / config.head_width
  if config.local_rope_theta:
    raw['rope_local_base_freq'] = config.local_rope_theta
  raw |= _describe_windows(config, architecture)
  if parse(raw, config.dtype, 'config.json') != config:
    raise ValueError(
      f'{architecture} comes closest to the model, but has not all of its '
      f'options: {config}.'
    )
  return raw


def _architecture(config: ModelConfig) -> str:
  """Returns the family that has the model's switches."""
  every = {key for switches in SWITCHES.values() for key in switches}
  mine = {key: True for key in every if getattr(config, key)}
  if config.turned and not mine:
    return 'SmolLM3ForCausalLM'
  if any(config.layer_windows):  # In the others, switches tell.
    if not mine:
      return 'MistralForCausalLM'
    if config.late_norms:
      return 'Olmo3ForCausalLM'
  for architecture, switches in SWITCHES.items():
    if switches == mine:
      return architecture
  raise ValueError(f'No supported architecture has just {sorted(mine)}.')


def _shape(fields: dict[str, Any], architecture: str) -> dict[str, Any]:
  """Returns fields of `ModelConfig`, but for the family's switches."""
  _check_numbers(fields)
  theta, scaling, local_theta, share = _rope(fields)
  heads, width = fields['num_attention_heads'], fields['hidden_size']
  kv_heads = fields['num_key_value_heads'] or heads
  head_width = fields['head_dim'] or width // heads
  if share != 1 and architecture != 'Phi3ForCausalLM':
    raise ValueError(
      f'partial_rotary_factor={share} is not supported in this family.'
    )
  if heads % kv_heads or head_width % 2 or int(head_width * share) % 2:
    raise ValueError(
      f'num_key_value_heads ({kv_heads}) must divide num_attention_heads '
      f'({heads}), and head_dim ({head_width}) be even, and what '
      'partial_rotary_factor takes of it.'
    )
  scalar = fields.get('query_pre_attn_scalar') or head_width
  return {
    'vocab': fields['vocab_size'],
    'width': width,
    'layers': fields['num_hidden_layers'],
    'heads': heads,
    'kv_heads': kv_heads,
    'head_width': head_width,
    'ffn': fields['intermediate_size'],
    'context': fields['max_position_embeddings'],
    'rope_theta': theta,
    'rope_scaling': scaling,
    'local_rope_theta': local_theta,
    'rotary_width': 0 if share == 1 else int(head_width * share),
    'turned': _turned(fields),
    'windows': _windows(fields, architecture),
    'norm_eps': fields['rms_norm_eps'],
    'tied': fields['tie_word_embeddings'],
    'activation': _activation(fields),
    'query_scale': 0.0 if scalar == head_width else scalar**-0.5,
    'attention_softcap': fields.get('attn_logit_softcapping') or 0.0,
    'logits_softcap': fields.get('final_logit_softcapping') or 0.0,
  }


def _check_numbers(fields: dict[str, Any]) -> None:
  """Refuses what is no number where some family's default is one."""
  numbers: dict[str, type] = {
    key: type(default)
    for known in FIELDS.values()
    for key, default in known.items()
    if type(default) in (int, float)
  }
  for key, kind in numbers.items():
    value = fields.get(key)
    if value is None or (value == 0 and key == 'max_window_layers'):
      continue
    kinds = int if kind is int else (int, float)
    is_number = isinstance(value, kinds) and not isinstance(value, bool)
    if not is_number or not 0 < value < float('inf'):
      name = 'whole number' if kind is int else 'number'
      raise ValueError(f'{key} must be a positive {name}; got {value!r}.')


def _windows(fields: dict[str, Any], architecture: str) -> tuple[int, ...]:
  layers, window = fields['num_hidden_layers'], fields.get('sliding_window')
  if not window or not fields.get('use_sliding_window', True):
    return ()
  kinds = fields.get('layer_types')
  if kinds is None and 'no_rope_layers' in fields:
    turned = _turned(fields) or [True] * layers
    kinds = ['full_attention' if t else 'sliding_attention' for t in turned]
  elif kinds is None and 'max_window_layers' in fields:
    first = min(fields['max_window_layers'], layers)
    kinds = ['full_attention'] * first
    kinds += ['sliding_attention'] * (layers - first)
  elif kinds is None:
    # Mistral, Phi: all; OLMo 3: all but every fourth; Gemma 2: every other one.
    fixed = {'Olmo3ForCausalLM': 4}
    fixed |= dict.fromkeys(_ONE_WINDOW, layers + 1)
    pattern = fixed.get(architecture, fields.get('sliding_window_pattern', 2))
    kinds = [
      'sliding_attention' if (i + 1) % pattern else 'full_attention'
      for i in range(layers)
    ]
  sizes = {'full_attention': 0, 'sliding_attention': window}
  unknown = set(kinds) - set(sizes)
  if unknown:
    raise ValueError(f'layer_types {sorted(unknown)} are not supported.')
  if len(kinds) != layers:
    raise ValueError(
      f'layer_types has {len(kinds)} entries for num_hidden_layers={layers}.'
    )
  windows = tuple(sizes[kind] for kind in kinds)
  return windows if any(windows) else ()


def _turned(fields: dict[str, Any]) -> tuple[bool, ...]:
  """Returns which layers turn queries and keys; () is all."""
  layers, interval = (
    fields['num_hidden_layers'],
    fields.get('no_rope_layer_interval'),
  )
  if interval is None:
    return ()
  given = fields['no_rope_layers']  # Of which 0 says that one has none.
  if given is None:
    given = [(layer + 1) % interval for layer in range(layers)]
  if not isinstance(given, list) or len(given) != layers:
    raise ValueError(
      f'no_rope_layers must have {layers} entries, as num_hidden_layers says; '
      f'got {given!r}.'
    )
  turned = tuple(map(bool, given))
  return () if all(turned) else turned


def _rope(
  fields: dict[str, Any],
) -> tuple[float, RopeScaling | None, float, float]:
  """Returns (base, scaling, base of layers with a window or 0, share).

  The share of a head's dimensions that are turned.
  """
  rope: dict[str, Any] = fields['rope_parameters'] or {}
  scaled: dict[str, Any] = fields['rope_scaling'] or {}
  local_theta = fields.get('rope_local_base_freq', 0.0)
  full: dict[str, Any] = {'rope_theta': fields['rope_theta']}
  if local_theta:  # By kind of layer.
    local: dict[str, Any] = rope.get('sliding_attention') or {}
    if local.get('rope_type', 'default') != 'default':
      raise ValueError(f'rope_parameters {local} are not supported.')
    local_theta = local.get('rope_theta', local_theta)
    full |= (rope.get('full_attention') or {}) | scaled
  else:
    full |= scaled or rope
  if any(isinstance(value, dict) for value in full.values()):
    raise ValueError(f'rope_parameters {full} are not supported.')
  share = (fields | full)['partial_rotary_factor']
  kind = full.get('rope_type') or full.get('type') or 'default'
  if kind == 'default':
    scaling = None
  elif kind == 'linear':
    scaling = RopeScaling('linear', full['factor'])
  elif kind == 'llama3':
    original = full.get('original_max_position_embeddings')
    scaling = RopeScaling(
      kind='llama3',
      factor=full['factor'],
      low=full['low_freq_factor'],
      high=full['high_freq_factor'],
      original=fields['original_max_position_embeddings']
      or original
      or fields['max_position_embeddings'],
    )
  else:
    raise ValueError(f'rope type {kind!r} is not supported.')
  return full['rope_theta'], scaling, local_theta, share


def _describe_windows(config: ModelConfig, architecture: str) -> dict[str, Any]:
  windows, window = config.layer_windows, max(config.layer_windows)
  if architecture in _ONE_WINDOW:
    return {'sliding_window': window or None}
  raw: dict[str, Any] = {}
  if architecture[:5] in ('Qwen2', 'Qwen3', 'SmolL'):
    raw['use_sliding_window'] = window > 0
  if architecture.startswith('Qwen'):
    raw['max_window_layers'] = next(
      (i for i, w in enumerate(windows) if w), config.layers
    )
  if config.turned:
    raw['no_rope_layers'] = [int(turned) for turned in config.turned]
  if architecture[:5] in ('Qwen2', 'Qwen3', 'Gemma', 'Olmo3', 'SmolL'):
    raw['sliding_window'] = window or None
    raw['layer_types'] = [
      'sliding_attention' if w else 'full_attention' for w in windows
    ]
  return raw


def _describe_scaling(scaling: RopeScaling | None) -> dict[str, Any] | None:
  if scaling is None:
    return None
  raw = {'rope_type': scaling.kind, 'factor': scaling.factor}
  if scaling.kind == 'llama3':
    raw |= {
      'low_freq_factor': scaling.low,
      'high_freq_factor': scaling.high,
      'original_max_position_embeddings': scaling.original,
    }
  return raw


def _activation(fields: dict[str, Any]) -> str:
  name = fields.get('hidden_act') or fields['hidden_activation']
  known = {'silu': 'silu', 'gelu_pytorch_tanh': 'gelu_tanh'}
  if name not in known:
    raise ValueError(f'activation {name!r} is not supported.')
  return known[name]
