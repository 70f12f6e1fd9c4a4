"""Frequencies at the sizes of real models are those of transformers."""

import copy

import numpy as np
import pytest

from rest.model.rope import make_rope
from rest.model.weights import config as config_json

# Positions as their config.json has them, but for Phi-4-mini's own factors.
PUBLISHED = {
  'Qwen2': {  # Qwen2.5-7B-Instruct, as its model card says to ask for YaRN.
    'hidden_size': 3584,
    'num_attention_heads': 28,
    'num_key_value_heads': 4,
    'max_position_embeddings': 32_768,
    'rope_theta': 1e6,
    'rope_scaling': {
      'type': 'yarn',
      'factor': 4.0,
      'original_max_position_embeddings': 32_768,
    },
  },
  'Olmo3': {  # Olmo-3-7B
    'max_position_embeddings': 65_536,
    'rope_theta': 500_000,
    'rope_scaling': {
      'rope_type': 'yarn',
      'attention_factor': 1.2079441541679836,
      'beta_fast': 32,
      'beta_slow': 1,
      'factor': 8.0,
      'original_max_position_embeddings': 8192,
    },
  },
  'Phi3': {  # Phi-4-mini
    'hidden_size': 3072,
    'num_attention_heads': 24,
    'num_key_value_heads': 8,
    'max_position_embeddings': 131_072,
    'original_max_position_embeddings': 4096,
    'partial_rotary_factor': 0.75,
    'rope_scaling': {
      'type': 'longrope',
      'short_factor': [1.0] * 48,
      'long_factor': np.linspace(1, 60, 48).tolist(),
    },
  },
}


@pytest.mark.parametrize('family', PUBLISHED)
def test_frequencies_and_scales_are_those_of_transformers(family):
  transformers = pytest.importorskip('transformers')
  functions = transformers.modeling_rope_utils.ROPE_INIT_FUNCTIONS
  raw = PUBLISHED[family]
  theirs = getattr(transformers, f'{family}Config')(**copy.deepcopy(raw))
  kind = raw['rope_scaling'].get('rope_type') or raw['rope_scaling']['type']
  where = {'layer_type': 'full_attention'} if family == 'Olmo3' else {}
  expected, scale = functions[kind](theirs, seq_len=100_000, **where)
  raw = raw | {'architectures': [f'{family}ForCausalLM']}
  ours = config_json.parse(raw, 'float32', 'config.json')
  assert ours.rope_scaling.attention == pytest.approx(scale, rel=1e-12)
  width = ours.rotary_width or ours.head_width
  rope = make_rope(np.ones((1, 1)), width, ours.rope_theta, ours.rope_scaling)
  angles = np.arctan2(rope.sin_BTJ[0, 0], rope.cos_BTJ[0, 0])
  apart = np.abs(angles / expected.numpy() - 1).max()
  print(f'frequencies up to {apart:.1e} apart')
  assert apart < 1e-6
