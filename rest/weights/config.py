"""config.json of Hugging Face checkpoints, to our `ModelConfig` and back.

Reads what the families published and what newer `transformers` versions write
(`rope_scaling` or `rope_parameters`, `sliding_window_pattern` or
`layer_types`); writes the former, which all versions read.
"""

import json
from typing import Any

from etils import epath

from rest.model import ModelConfig, RopeScaling

_GEMMA = {'post_norms': True, 'unit_offset': True, 'scaled_embedding': True}

# What sets the families apart, beyond sizes.
_SWITCHES: dict[str, dict[str, bool]] = {
  'LlamaForCausalLM': {},
  'MistralForCausalLM': {},
  'Qwen2ForCausalLM': {'qkv_bias': True},
  'Qwen3ForCausalLM': {'qk_norm': True},
  'Gemma2ForCausalLM': _GEMMA,
  'Gemma3ForCausalLM': _GEMMA | {'qk_norm': True},
}

_MODEL_TYPES = {
  'LlamaForCausalLM': 'llama',
  'MistralForCausalLM': 'mistral',
  'Qwen2ForCausalLM': 'qwen2',
  'Qwen3ForCausalLM': 'qwen3',
  'Gemma2ForCausalLM': 'gemma2',
  'Gemma3ForCausalLM': 'gemma3_text',
}

# The text half of an image and text model, which has more of them.
_NESTED = {'Gemma3ForConditionalGeneration': 'Gemma3ForCausalLM'}

# What config.json may leave out, where it is not what Llama would have.
_DEFAULTS: dict[str, dict[str, Any]] = {
  'MistralForCausalLM': {'sliding_window': 4096},
  'Gemma2ForCausalLM': {'tie_word_embeddings': True},
  'Gemma3ForCausalLM': {
    'tie_word_embeddings': True,
    'vocab_size': 262_208,
    'num_attention_heads': 8,
    'num_key_value_heads': 4,
    'head_dim': 256,
    'max_position_embeddings': 131_072,
    'rms_norm_eps': 1e-6,
    'query_pre_attn_scalar': 256,
    'sliding_window': 4096,
    'sliding_window_pattern': 6,
    'hidden_activation': 'gelu_pytorch_tanh',
    'rope_theta': 1_000_000.0,
    'rope_local_base_freq': 10_000.0,
  },
}

# Options that change the result and that our model has not.
_REFUSED = (
  'attention_bias',
  'mlp_bias',
  'quantization_config',
  'use_bidirectional_attention',
)


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
    raw = json.loads((folder / 'config.json').read_text())
  except ValueError as error:
    raise ValueError(f'{path}/config.json is not JSON: {error}.') from error
  names = raw.get('architectures') or ['']
  if names[0] in _NESTED:
    raw = {
      **raw,
      **raw.get('text_config', {}),
      'architectures': [_NESTED[names[0]]],
    }
  elif names[0] not in _SWITCHES:
    raise ValueError(
      f'{path}/config.json: architectures is {names}; supported are '
      f'{", ".join([*_SWITCHES, *_NESTED])}.'
    )
  return raw


def parse(raw: dict[str, Any], dtype: str, where: str) -> ModelConfig:
  """Returns the model's shape.

  Args:
    raw: A config.json, as `read` returns it.
    dtype: Of matrix products.
    where: What to call it in errors.

  Raises:
    ValueError: A field is missing, or an option is not supported.
  """
  architecture = raw['architectures'][0]
  raw = _DEFAULTS.get(architecture, {}) | raw
  for key in _REFUSED:
    if raw.get(key):
      raise ValueError(f'{where}: {key}={raw[key]!r} is not supported.')
  try:
    windows = _windows(raw, architecture)
    theta, scaling, local_theta = _rope(raw)
    heads = raw['num_attention_heads']
    head_width = raw.get('head_dim') or raw['hidden_size'] // heads
    scalar = raw.get('query_pre_attn_scalar') or head_width
    return ModelConfig(
      vocab=raw['vocab_size'],
      width=raw['hidden_size'],
      layers=raw['num_hidden_layers'],
      heads=heads,
      kv_heads=raw.get('num_key_value_heads') or heads,
      head_width=head_width,
      ffn=raw['intermediate_size'],
      context=raw['max_position_embeddings'],
      rope_theta=theta,
      rope_scaling=scaling,
      local_rope_theta=local_theta,
      windows=windows,
      norm_eps=raw['rms_norm_eps'],
      tied=raw.get('tie_word_embeddings', False),
      activation=_activation(raw),
      query_scale=0.0 if scalar == head_width else scalar**-0.5,
      attention_softcap=raw.get('attn_logit_softcapping') or 0.0,
      logits_softcap=raw.get('final_logit_softcapping') or 0.0,
      dtype=dtype,
      **_SWITCHES[architecture],
    )
  except KeyError as error:
    raise ValueError(f'{where} has no field {error}.') from error
  except ValueError as error:
    raise ValueError(f'{where}: {error}') from error


def describe(config: ModelConfig, dtype: str) -> dict[str, Any]:
  """Returns the config.json of a model, without ids of special tokens.

  Raises:
    ValueError: No supported architecture has this model's switches.
  """
  architecture = _architecture(config)
  raw = {
    'architectures': [architecture],
    'model_type': _MODEL_TYPES[architecture],
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
  }
  window = max(config.layer_windows)
  if architecture == 'MistralForCausalLM':
    raw['sliding_window'] = window
  elif architecture.startswith('Qwen'):
    windows = config.layer_windows
    raw['use_sliding_window'] = window > 0
    raw['max_window_layers'] = next(
      (i for i, w in enumerate(windows) if w), config.layers
    )
  if config.post_norms:
    scale = config.query_scale or config.head_width**-0.5
    raw |= {
      'hidden_act': 'gelu_pytorch_tanh',
      'hidden_activation': 'gelu_pytorch_tanh',
      'query_pre_attn_scalar': round(scale**-2),
      'attn_logit_softcapping': config.attention_softcap or None,
      'final_logit_softcapping': config.logits_softcap or None,
    }
  if config.local_rope_theta:
    raw['rope_local_base_freq'] = config.local_rope_theta
  if architecture[:5] in ('Qwen2', 'Qwen3', 'Gemma'):
    raw['sliding_window'] = window or None
    raw['layer_types'] = [
      'sliding_attention' if w else 'full_attention'
      for w in config.layer_windows
    ]
  if parse(raw, config.dtype, 'config.json') != config:
    raise ValueError(
      f'{architecture} comes closest to the model, but has not all of its '
      f'options: {config}.'
    )
  return raw


def _architecture(config: ModelConfig) -> str:
  """Returns the family that has the model's switches."""
  every = {key for switches in _SWITCHES.values() for key in switches}
  mine = {key: True for key in every if getattr(config, key)}
  if not mine and any(config.layer_windows):
    return 'MistralForCausalLM'
  for architecture, switches in _SWITCHES.items():
    if switches == mine:
      return architecture
  raise ValueError(f'No supported architecture has just {sorted(mine)}.')


def _windows(raw: dict[str, Any], architecture: str) -> tuple[int, ...]:
  layers, window = raw['num_hidden_layers'], raw.get('sliding_window') or 0
  is_qwen = architecture.startswith('Qwen')
  if architecture == 'LlamaForCausalLM':
    return ()
  if not window or (is_qwen and not raw.get('use_sliding_window')):
    return ()
  if raw.get('layer_types') and architecture != 'MistralForCausalLM':
    kinds = raw['layer_types']
  elif is_qwen:
    first = raw['max_window_layers']
    kinds = ['full_attention'] * first + ['sliding_attention'] * layers
  elif architecture == 'MistralForCausalLM':
    kinds = ['sliding_attention'] * layers
  else:
    pattern = raw.get('sliding_window_pattern', 2)
    kinds = [
      'sliding_attention' if (i + 1) % pattern else 'full_attention'
      for i in range(layers)
    ]
  sizes = {'full_attention': 0, 'sliding_attention': window}
  unknown = set(kinds) - set(sizes)
  if unknown:
    raise ValueError(f'layer_types {sorted(unknown)} are not supported.')
  windows = tuple(sizes[kind] for kind in kinds[:layers])
  return windows if any(windows) else ()


def _rope(raw: dict[str, Any]) -> tuple[float, RopeScaling | None, float]:
  """Returns (base, scaling, base of layers with a window or 0)."""
  rope = raw.get('rope_parameters') or {}
  if 'full_attention' in rope:
    local = rope['sliding_attention']
    if local.get('rope_type', 'default') != 'default':
      raise ValueError(f'rope_parameters {local} are not supported.')
    full, local_theta = rope['full_attention'], local['rope_theta']
  else:
    full = {'rope_theta': raw.get('rope_theta', 10_000.0)}
    full |= (raw.get('rope_scaling') or {}) | rope
    local_theta = raw.get('rope_local_base_freq', 0.0)
  if (raw | full).get('partial_rotary_factor', 1.0) != 1.0:
    raise ValueError('partial_rotary_factor other than 1 is not supported.')
  kind = full.get('rope_type') or full.get('type') or 'default'
  if kind == 'default':
    scaling = None
  elif kind == 'linear':
    scaling = RopeScaling('linear', full['factor'])
  elif kind == 'llama3':
    scaling = RopeScaling(
      kind='llama3',
      factor=full['factor'],
      low=full['low_freq_factor'],
      high=full['high_freq_factor'],
      original=full['original_max_position_embeddings'],
    )
  else:
    raise ValueError(f'rope type {kind!r} is not supported.')
  return full['rope_theta'], scaling, local_theta


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


def _activation(raw: dict[str, Any]) -> str:
  name = raw.get('hidden_activation') or raw.get('hidden_act', 'silu')
  known = {'silu': 'silu', 'gelu_pytorch_tanh': 'gelu_tanh'}
  if name not in known:
    raise ValueError(f'activation {name!r} is not supported.')
  return known[name]
