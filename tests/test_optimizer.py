"""The optimizers: what is clipped, and what decays."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

from rest.model import ModelConfig, Transformer
from rest.optimizer import make_optimizer
from rest.recipe import MStepConfig
from rest.sharding import leaf_name

MODEL = ModelConfig(
  vocab=64,
  width=32,
  layers=2,
  heads=4,
  kv_heads=2,
  head_width=8,
  ffn=48,
  qkv_bias=True,
  qk_norm=True,
)


def test_a_gradient_longer_than_the_limit_is_cut_to_it():
  optimizer = make_optimizer(MStepConfig(clip=0.5, beta1=0.9))
  weights = {'a_D': jnp.zeros(3), 'b_DF': jnp.zeros((2, 2))}
  for scale, expected in ((1e-3, 7**0.5 * 1e-3), (1e3, 0.5)):
    gradient = jax.tree.map(lambda x, s=scale: x + s, weights)
    _, state = optimizer.update(gradient, optimizer.init(weights), weights)
    moment = optax.tree.get(state, 'mu')
    length = float(optax.tree.norm(moment)) / (1 - 0.9)
    assert length == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize('name', ['adamw', 'adafactor'])
def test_decay_shrinks_matrices_and_leaves_norms_and_biases(name: Any):
  optimizer = make_optimizer(MStepConfig(optimizer=name, weight_decay=0.1))
  model = jax.tree.map(jnp.ones_like, Transformer(MODEL, jax.random.key(0)))
  still = jax.tree.map(jnp.zeros_like, model)
  step, _ = jax.jit(optimizer.update)(
    still, jax.jit(optimizer.init)(model), model
  )
  for path, leaf in jax.tree_util.tree_leaves_with_path(step):
    is_kept = '_norm_' in leaf_name(path) or '_bias_' in leaf_name(path)
    expected = 0.0 if is_kept else -0.1
    assert jnp.allclose(leaf, expected, atol=1e-6), leaf_name(path)
