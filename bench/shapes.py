"""The models that are timed, with random weights."""

from rest.model.transformer import ModelConfig

# Qwen2.5's shapes, and one that runs anywhere.
SHAPES = {
  '1.5b': ModelConfig(
    vocab=151_936,
    width=1536,
    layers=28,
    heads=12,
    kv_heads=2,
    head_width=128,
    ffn=8960,
    rope_theta=1e6,
    qkv_bias=True,
    dtype='bfloat16',
  ),
  '7b': ModelConfig(
    vocab=152_064,
    width=3584,
    layers=28,
    heads=28,
    kv_heads=4,
    head_width=128,
    ffn=18_944,
    rope_theta=1e6,
    qkv_bias=True,
    tied=False,
    dtype='bfloat16',
  ),
  'tiny': ModelConfig(
    vocab=1024,
    width=192,
    layers=6,
    heads=6,
    kv_heads=2,
    head_width=32,
    ffn=512,
  ),
}
