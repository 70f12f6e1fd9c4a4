"""A model, examples and a config that train in a moment."""

import math
from typing import Any

import jax
import numpy as np

from rest.config import MStepConfig
from rest.m_step.packing import Example
from rest.model import sharding
from rest.model.transformer import ModelConfig, Transformer

MODEL = ModelConfig(
  vocab=64, width=32, layers=2, heads=4, kv_heads=2, head_width=8, ffn=48
)
CONFIG = MStepConfig(
  learning_rate=3e-3,
  batch=14,
  row_length=32,
  rows=16,
  epochs=4,
  eval_every=4,
  save_every=3,
  remat='none',
)


def make_examples(count: int = 40, seed: int = 0) -> list[Example]:
  """Returns solutions, of each problem about three, behind a prefix."""
  random = np.random.default_rng(seed)

  def ids(low: int, high: int) -> tuple[int, ...]:
    return tuple(random.integers(1, 64, random.integers(low, high)).tolist())

  questions = [ids(1, 7) for _ in range(1 + count // 3)]
  return [
    Example(
      questions[random.integers(len(questions))],
      ids(2, 16),
      float(random.choice([0.5, 1.0, 2.0])),
      prefix=(3, 1, 4),
    )
    for _ in range(count)
  ]


def make_model(mesh=None, config: ModelConfig = MODEL) -> Transformer:
  model = Transformer(config, jax.random.key(0))
  mesh = one_device() if mesh is None else mesh
  return jax.device_put(model, sharding.shardings(model, mesh))


def one_device():
  return make_mesh(1, 1, 1)


def make_mesh(*axes: int):
  devices = jax.devices()[: math.prod(axes)]
  return sharding.make_mesh(sharding.MeshConfig(*axes), devices)


def distance(a: Any, b: Any) -> float:
  """Returns the largest |a - b| / |b| over the leaves."""
  pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
  arrays = [(np.asarray(x, np.float64), np.asarray(y)) for x, y in pairs]
  return max(
    float(np.linalg.norm(x - y) / (np.linalg.norm(y) + 1e-30))
    for x, y in arrays
  )


def same_bytes(a: Any, b: Any) -> bool:
  pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
  return all((np.asarray(x) == np.asarray(y)).all() for x, y in pairs)
