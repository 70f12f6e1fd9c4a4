"""A small model on packed rows, and how far two results are apart."""

from typing import Any

import jax
import numpy as np

from rest.m_step.loss import weighted_loss
from rest.m_step.packing import Batch
from rest.model.transformer import ModelConfig, Transformer, backbone, unstack


def make_config(kv_heads=2, groups=2, **fields: Any) -> ModelConfig:
  return ModelConfig(
    vocab=64,
    width=32,
    layers=2,
    heads=kv_heads * groups,
    kv_heads=kv_heads,
    head_width=16,
    ffn=48,
    **fields,
  )


def make_model(config: ModelConfig) -> Transformer:
  return Transformer(config, jax.random.key(0))


def loss(model: Transformer, batch: Batch, attend: Any, remat=None):
  x_BTD, _ = backbone(
    unstack(model), batch.tokens_BT, batch.positions_BT, attend, remat=remat
  )
  total = weighted_loss(model, x_BTD, batch.targets_BT, batch.weights_BT)
  return total / batch.weights_BT.sum()


def distance(a: Any, b: Any) -> float:
  """Returns the largest |a - b| / |b| over the leaves."""
  pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
  arrays = [[np.asarray(x, np.float64) for x in pair] for pair in pairs]
  return max(
    float(np.linalg.norm(x - y) / (np.linalg.norm(y) + 1e-30))
    for x, y in arrays
  )
