"""The model families: their names, switches, and fields with defaults."""

from typing import Any

_GEMMA = {'post_norms': True, 'unit_offset': True, 'scaled_embedding': True}

_OLMO = {'late_norms': True, 'wide_qk_norm': True}

# What sets the families apart, beyond sizes.
SWITCHES: dict[str, dict[str, bool]] = {
  'LlamaForCausalLM': {},
  'MistralForCausalLM': {},
  'Qwen2ForCausalLM': {'qkv_bias': True},
  'Qwen3ForCausalLM': {'qk_norm': True},
  'Gemma2ForCausalLM': _GEMMA,
  'Gemma3ForCausalLM': _GEMMA | {'qk_norm': True},
  'Olmo2ForCausalLM': _OLMO,
  'Olmo3ForCausalLM': _OLMO,
  'SmolLM3ForCausalLM': {},  # And layers without rotary embedding.
  'Phi3ForCausalLM': {'fused': True},  # Phi-4 as well.
}

MODEL_TYPES = {
  'LlamaForCausalLM': 'llama',
  'MistralForCausalLM': 'mistral',
  'Qwen2ForCausalLM': 'qwen2',
  'Qwen3ForCausalLM': 'qwen3',
  'Gemma2ForCausalLM': 'gemma2',
  'Gemma3ForCausalLM': 'gemma3_text',
  'Olmo2ForCausalLM': 'olmo2',
  'Olmo3ForCausalLM': 'olmo3',
  'SmolLM3ForCausalLM': 'smollm3',
  'Phi3ForCausalLM': 'phi3',
}

# The text half of an image and text model, which has more of them.
NESTED = {'Gemma3ForConditionalGeneration': 'Gemma3ForCausalLM'}

# What a family reads of its config.json, and what counts where it is left out:
# the values of transformers' config classes. Other fields mean nothing to it.
_COMMON: dict[str, Any] = {
  'vocab_size': 32_000,
  'hidden_size': 4096,
  'intermediate_size': 11_008,
  'num_hidden_layers': 32,
  'num_attention_heads': 32,
  'num_key_value_heads': None,
  'head_dim': None,
  'max_position_embeddings': 2048,
  'rms_norm_eps': 1e-6,
  'tie_word_embeddings': False,
  'rope_theta': 10_000.0,
  'rope_scaling': None,
  'rope_parameters': None,
  'partial_rotary_factor': 1.0,
  'original_max_position_embeddings': None,
}
_LLAMAS = _COMMON | {'hidden_act': 'silu'}
_QWEN = _LLAMAS | {
  'vocab_size': 151_936,
  'intermediate_size': 22_016,
  'num_key_value_heads': 32,
  'max_position_embeddings': 32_768,
  'use_sliding_window': False,
  'sliding_window': 4096,
  'max_window_layers': 28,
  'layer_types': None,
}
_GEMMAS = _COMMON | {
  'vocab_size': 256_000,
  'hidden_size': 2304,
  'intermediate_size': 9216,
  'num_hidden_layers': 26,
  'num_attention_heads': 8,
  'num_key_value_heads': 4,
  'head_dim': 256,
  'max_position_embeddings': 8192,
  'tie_word_embeddings': True,
  'hidden_activation': 'gelu_pytorch_tanh',
  'query_pre_attn_scalar': 256,
  'attn_logit_softcapping': 50.0,
  'final_logit_softcapping': 30.0,
  'sliding_window': 4096,
  'layer_types': None,
}
_OLMOS = _LLAMAS | {'vocab_size': 50_304, 'rms_norm_eps': 1e-5}
FIELDS: dict[str, dict[str, Any]] = {
  'LlamaForCausalLM': _LLAMAS,
  'MistralForCausalLM': _LLAMAS
  | {
    'intermediate_size': 14_336,
    'num_key_value_heads': 8,
    'max_position_embeddings': 131_072,
    'sliding_window': 4096,
  },
  'Qwen2ForCausalLM': _QWEN,
  'Qwen3ForCausalLM': _QWEN | {'head_dim': 128},
  'Gemma2ForCausalLM': _GEMMAS,
  'Gemma3ForCausalLM': _GEMMAS
  | {
    'vocab_size': 262_208,
    'max_position_embeddings': 131_072,
    'attn_logit_softcapping': None,
    'final_logit_softcapping': None,
    'sliding_window_pattern': 6,
    'rope_theta': 1_000_000.0,
    'rope_local_base_freq': 10_000.0,
  },
  'Olmo2ForCausalLM': _OLMOS,
  'Olmo3ForCausalLM': _OLMOS
  | {
    'sliding_window': 4096,
    'layer_types': None,
    'rope_theta': 500_000.0,
    'rope_local_base_freq': 500_000.0,
  },
  'SmolLM3ForCausalLM': _LLAMAS
  | {
    'vocab_size': 128_256,
    'hidden_size': 2048,
    'num_hidden_layers': 36,
    'num_attention_heads': 16,
    'num_key_value_heads': 4,
    'max_position_embeddings': 32_768,
    'tie_word_embeddings': True,
    'rope_theta': 2_000_000.0,
    'use_sliding_window': False,
    'sliding_window': None,
    'layer_types': None,
    'no_rope_layers': None,
    'no_rope_layer_interval': 4,
  },
  'Phi3ForCausalLM': _LLAMAS
  | {
    'vocab_size': 32_064,
    'hidden_size': 3072,
    'intermediate_size': 8192,
    'max_position_embeddings': 4096,
    'original_max_position_embeddings': 4096,
    'rms_norm_eps': 1e-5,
    'sliding_window': None,
  },
}

# Where null is a value, and not the same as nothing: no window, no cap, ...
OFF = frozenset(
  (
    'sliding_window',
    'num_key_value_heads',
    'attn_logit_softcapping',
    'final_logit_softcapping',
  )
)

# Options that change the result and that our model has not.
REFUSED = (
  'attention_bias',
  'mlp_bias',
  'quantization_config',
  'use_bidirectional_attention',
)
