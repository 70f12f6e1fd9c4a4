"""config.json of Hugging Face checkpoints, to our `ModelConfig` and back.

Reads what the families published and what newer `transformers` versions write
(`rope_scaling` or `rope_parameters`, `sliding_window_pattern` or
`layer_types`); writes the former, which all versions read.
"""

import json
from typing import Any

from etils import epath

from rest.model.transformer import ModelConfig
from rest.model.weights import rotary
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
  raw |= rotary.describe(config, architecture)
  raw |= _describe_windows(config, architecture)
  again = parse(raw, config.dtype, 'config.json')
  if rotary.choose_factors(again, 0) != rotary.choose_factors(config, 0):
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
  heads, width = fields['num_attention_heads'], fields['hidden_size']
  kv_heads = fields['num_key_value_heads'] or heads
  head_width = fields['head_dim'] or width // heads
  if heads % kv_heads or head_width % 2:
    raise ValueError(
      f'num_key_value_heads ({kv_heads}) must divide num_attention_heads '
      f'({heads}), and head_dim ({head_width}) be even.'
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
    'turned': _turned(fields),
    'windows': _windows(fields, architecture),
    'norm_eps': fields['rms_norm_eps'],
    'tied': fields['tie_word_embeddings'],
    'activation': _activation(fields),
    'query_scale': 0.0 if scalar == head_width else scalar**-0.5,
    'attention_softcap': fields.get('attn_logit_softcapping') or 0.0,
    'logits_softcap': fields.get('final_logit_softcapping') or 0.0,
    **rotary.parse(fields, architecture, head_width),
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
    rotary.check_number(key, value, kind)


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


def _activation(fields: dict[str, Any]) -> str:
  name = fields.get('hidden_act') or fields['hidden_activation']
  known = {'silu': 'silu', 'gelu_pytorch_tanh': 'gelu_tanh'}
  if name not in known:
    raise ValueError(f'activation {name!r} is not supported.')
  return known[name]
