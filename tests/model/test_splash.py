"""JAX's attention for TPUs, interpreted: as plain attention, packed or not."""

import math

import jax
import numpy as np
import pytest

from rest.m_step.packing import Batch, Example, Shape, pack
from rest.model.attention import plain_attention
from rest.model.sharding import MeshConfig, make_mesh, shardings
from rest.model.splash import splash_attention
from tests.model.packed import distance, loss, make_config, make_model

LENGTH = 384  # Three blocks.


def make_batch(examples: list[Example], rows: int) -> Batch:
  shape = Shape(rows, LENGTH, used=LENGTH)
  return pack(examples, range(len(examples)), shape, share=False)


def make_examples(*lengths: int) -> list[Example]:
  random = np.random.default_rng(0)
  return [
    Example(
      tuple(random.integers(1, 64, length // 3).tolist()),
      tuple(random.integers(1, 64, length - length // 3 + 1).tolist()),
    )
    for length in lengths
  ]


def splash_loss(model, batch):
  attend = splash_attention(model.config, batch.ends_BT, interpret=True)
  return loss(model, batch, attend)


def plain_loss(model, batch):
  attend = plain_attention(model.config, batch.ends_BT, batch.positions_BT)
  return loss(model, batch, attend)


@pytest.mark.parametrize(
  ('heads', 'fields'),
  [
    ((1, 3), {'windows': (0, 130), 'qkv_bias': True}),
    ((2, 1), {'windows': (7, 0), 'attention_softcap': 1.5}),
  ],
)
def test_packed_equals_unpacked_and_plain_attention(heads, fields):
  """Segments within a block, over blocks, a whole row of one, and none."""
  model = make_model(make_config(*heads, **fields))
  examples = make_examples(LENGTH, 20, 200, 130, 40)
  packed = make_batch(examples, 5)
  assert len(np.unique(packed.ends_BT)) > 3  # Several share a row.
  alone = [make_batch([example], 1) for example in examples]
  alone = Batch(*map(np.concatenate, zip(*alone, strict=True)))
  run = jax.jit(jax.value_and_grad(splash_loss))
  found = run(model, packed)
  assert distance(found, run(model, alone)) < 5e-6
  expected = jax.jit(jax.value_and_grad(plain_loss))(model, packed)
  assert distance(found, expected) < 5e-6


def test_every_mesh_gives_the_same_gradients():
  model = make_model(make_config(2, 2))
  batch = make_batch(make_examples(*[200] * 8), 8)
  run = jax.jit(jax.value_and_grad(splash_loss))
  expected = run(model, batch)
  axes = (2, 2, 2)
  mesh = make_mesh(MeshConfig(*axes), jax.devices()[: math.prod(axes)])
  with jax.set_mesh(mesh):
    found = run(jax.device_put(model, shardings(model, mesh)), batch)
  assert distance(found, expected) < 5e-6
