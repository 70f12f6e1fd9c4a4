"""A step: how rows are parted, what is clipped, and what decays."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

from rest.config import MStepConfig
from rest.m_step.packing import Batch
from rest.m_step.update import _parts, make_optimizer


def test_rows_stay_on_their_devices_when_they_are_parted():
  rows = jnp.arange(8)[:, None]
  parts = _parts(Batch(*[rows] * 5), 2)
  assert parts.tokens_BT[..., 0].tolist() == [[0, 2, 4, 6], [1, 3, 5, 7]]


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
  model = {
    'attn_norm_D': jnp.ones(4),
    'qkv_bias_KPH': jnp.ones((1, 3, 2)),
    'down_FD': jnp.ones((3, 4)),
  }
  still = jax.tree.map(jnp.zeros_like, model)
  step, _ = optimizer.update(still, optimizer.init(model), model)
  for leaf, expected in (
    ('attn_norm_D', 0.0),
    ('qkv_bias_KPH', 0.0),
    ('down_FD', -0.1),
  ):
    assert jnp.allclose(step[leaf], expected, atol=1e-6), leaf
