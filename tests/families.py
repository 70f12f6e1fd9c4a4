"""Tiny random checkpoints of each model family, made by `transformers`."""

import copy
from pathlib import Path
from typing import Any

SIZES = {
  'vocab_size': 64,
  'hidden_size': 32,
  'intermediate_size': 48,
  'num_hidden_layers': 3,
  'num_attention_heads': 4,
  'num_key_value_heads': 2,
  'head_dim': 16,
  'max_position_embeddings': 64,
}

LLAMA3_SCALING = {
  'rope_type': 'llama3',
  'factor': 8.0,
  'low_freq_factor': 1.0,
  'high_freq_factor': 4.0,
  'original_max_position_embeddings': 32,
}

# Of the form of Qwen2.5's and OLMo 3's; some pair is slowed down by a part.
YARN = {
  'rope_type': 'yarn',
  'factor': 4.0,
  'original_max_position_embeddings': 1024,
}

# Phi-4-mini's form: rotary embedding of 6 dimensions of 8.
LONGROPE = {
  'type': 'longrope',
  'short_factor': [1.0, 1.25, 1.5],
  'long_factor': [1.25, 3.0, 20.0],
}
PHI4_MINI = {
  'pad_token_id': 0,
  'rope_theta': 300.0,
  'rope_scaling': LONGROPE,
  'partial_rotary_factor': 0.75,
  'original_max_position_embeddings': 8,
  'max_position_embeddings': 256,
  'head_dim': 8,
  'tie_word_embeddings': True,
  'sliding_window': 262_144,
}

# The longest sequence of those that are compared.
LONGEST = 40

# Caps, windows and scales are small enough to matter in a dozen tokens.
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
  'llama': ('Llama', {'num_key_value_heads': 4, 'rms_norm_eps': 1e-3}),
  'llama3': (
    'Llama',
    {
      # Some wavelength lies between those kept and those stretched whole.
      'rope_theta': 20_000.0,
      'rope_scaling': LLAMA3_SCALING,
      'tie_word_embeddings': True,
    },
  ),
  'mistral': ('Mistral', {'sliding_window': 4}),
  'qwen2': ('Qwen2', {'rope_theta': 1e6, 'tie_word_embeddings': True}),
  'qwen2_windows': (
    'Qwen2',
    {'use_sliding_window': True, 'sliding_window': 4, 'max_window_layers': 2},
  ),
  'qwen3': ('Qwen3', {'head_dim': 12}),
  'gemma2': (
    'Gemma2',
    {
      'sliding_window': 4,
      'query_pre_attn_scalar': 9,
      'attn_logit_softcapping': 2.0,
      'final_logit_softcapping': 3.0,
    },
  ),
  'gemma3': (
    'Gemma3',
    {
      'sliding_window': 4,
      'sliding_window_pattern': 3,
      'rope_theta': 1e6,
      'rope_local_base_freq': 100.0,
      'rope_scaling': {'rope_type': 'linear', 'factor': 8.0},
    },
  ),
  'olmo2': ('Olmo2', {'rms_norm_eps': 1e-3}),
  'olmo3': (
    'Olmo3',
    {
      'sliding_window': 4,
      'layer_types': ['sliding_attention'] * 2 + ['full_attention'],
      'rope_theta': 300.0,
    },
  ),
  'smollm3': (
    'SmolLM3',
    {'rope_theta': 300.0, 'no_rope_layer_interval': 2, 'pad_token_id': 0},
  ),
  'phi3': ('Phi3', {'pad_token_id': 0, 'sliding_window': 4}),
  'phi4': (
    'Phi3',
    {
      'pad_token_id': 0,
      'rope_parameters': {
        'rope_type': 'default',
        'rope_theta': 300.0,
        'partial_rotary_factor': 0.75,
      },
      'head_dim': 8,
      'tie_word_embeddings': True,
    },
  ),
  'qwen2_yarn': ('Qwen2', {'rope_scaling': YARN}),
  'qwen3_yarn': (
    'Qwen3',
    {
      'rope_parameters': YARN
      | {
        'rope_theta': 10_000.0,
        'beta_fast': 8.0,
        'beta_slow': 2.0,
        'mscale': 0.7,
        'mscale_all_dim': 1.5,
        'truncate': False,
      }
    },
  ),
  'olmo3_yarn': (
    'Olmo3',
    {
      'sliding_window': 4,
      'rope_scaling': YARN | {'beta_fast': 32, 'attention_factor': 1.2},
      'num_hidden_layers': 4,
    },
  ),
  'phi4_mini': ('Phi3', PHI4_MINI),  # With the factors of long sequences.
  'phi4_mini_short': (
    'Phi3',
    PHI4_MINI | {'original_max_position_embeddings': 48},
  ),
  'smollm3_windows': (
    'SmolLM3',
    {
      'no_rope_layers': [0, 1, 0],
      'pad_token_id': 0,
      'use_sliding_window': True,
      'sliding_window': 4,
    },
  ),
}


def write(name: str, path: Path) -> Any:
  """Writes a checkpoint of a family and returns the reference model."""
  import torch
  import transformers

  family, options = FAMILIES[name]
  text = 'Text' if family == 'Gemma3' else ''
  options = copy.deepcopy(SIZES | options)  # It writes into dicts of dicts.
  config = getattr(transformers, f'{family}{text}Config')(**options)
  config._attn_implementation = 'eager'
  torch.manual_seed(0)
  model = getattr(transformers, f'{family}ForCausalLM')(config).eval()
  with torch.no_grad():
    for parameter in model.parameters():
      scale = parameter.shape[-1] ** -0.5 if parameter.ndim > 1 else 0.3
      parameter.add_(torch.randn_like(parameter) * scale)
  model.save_pretrained(path)
  return model
