"""A step: gradients, parts, meshes, adapters, what is clipped and decays."""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rest.config import MStepConfig
from rest.m_step import loss
from rest.m_step.packing import Batch, Example, pack, plan
from rest.m_step.update import (
  _parts,
  decayed,
  gradients,
  init_state,
  make_optimizer,
  put,
  update,
)
from rest.model import lora, sharding
from rest.model.transformer import Transformer
from tests.m_step.small_training import (
  CONFIG,
  MODEL,
  distance,
  make_examples,
  make_mesh,
  make_model,
  one_device,
  same_bytes,
)
from tests.programs import equations


def reference_gradients(model: Transformer, examples: list[Example]):
  """Returns loss and gradients in float64, sequence by sequence."""

  def norm(x, w):
    return x / jnp.sqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6) * w

  def rotate(x, t):
    half = x.shape[-1] // 2
    angle = t * 10_000.0 ** (-jnp.arange(half) / half)[None, :]
    cos, sin = jnp.cos(angle)[:, None], jnp.sin(angle)[:, None]
    a, b = x[..., :half], x[..., half:]
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1)

  def log_probs(w, tokens):
    layers = w.layers
    x = w.embed_VD[...][tokens]
    t = jnp.arange(len(tokens))[:, None].astype(float)
    for i in range(MODEL.layers):
      h = norm(x, layers.attn_norm_D[...][i])
      qkv = jnp.einsum('td,dkph->tkph', h, layers.qkv_DKPH[...][i])
      heads = []
      for head in range(MODEL.heads):
        group, member = divmod(head, MODEL.groups)
        q = rotate(qkv[:, group, member : member + 1], t)[:, 0]
        k = rotate(qkv[:, group, -2:-1], t)[:, 0]
        scores = q @ k.T / math.sqrt(MODEL.head_width)
        scores = jnp.where(t >= t.T, scores, -jnp.inf)
        heads.append(jax.nn.softmax(scores, -1) @ qkv[:, group, -1])
      o = layers.o_KGHD[...][i].reshape(-1, MODEL.width)
      x = x + jnp.concatenate(heads, -1) @ o
      h = norm(x, layers.ffn_norm_D[...][i])
      gate, up = (h @ layers.gate_up_DCF[...][i][:, c] for c in range(2))
      x = x + (jax.nn.silu(gate) * up) @ layers.down_FD[...][i]
    x = norm(x, w.final_norm_D[...])
    return jax.nn.log_softmax(x @ w.embed_VD[...].T, -1)

  def loss(w):
    total = weight = 0.0
    for example in examples:
      prompt = example.prefix + example.question
      tokens = jnp.array(prompt + example.completion)
      scores = log_probs(w, tokens[:-1])
      scores = scores[jnp.arange(len(tokens) - 1), tokens[1:]]
      total -= example.weight * scores[len(prompt) - 1 :].sum()
      weight += example.weight * len(example.completion)
    return total / weight

  with jax.enable_x64(True), jax.numpy_rank_promotion('allow'):
    exact = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), model)
    loss_64, gradient = jax.jit(jax.value_and_grad(loss))(exact)
    return float(loss_64), jax.tree.map(np.asarray, gradient)


def only_batch(
  examples: list[Example],
  row_length: int = 32,
  rows: int = 16,
  share: bool = True,
  shards: int = 1,
) -> Batch:
  every = range(len(examples))
  shape = plan(examples, [every], row_length, rows, shards, share)
  return pack(examples, every, shape, share)


run_gradients = jax.jit(gradients, static_argnames='config')


def test_gradients_equal_a_float64_reference():
  examples = make_examples(4)
  loss, gradient = run_gradients(
    make_model(), only_batch(examples), config=CONFIG
  )
  loss_64, reference = reference_gradients(make_model(), examples)
  assert abs(float(loss) - loss_64) < 1e-6 * loss_64
  assert distance(gradient, reference) < 2e-6


@pytest.mark.parametrize('row_length', [32, 48, 512])
@pytest.mark.parametrize('windows', [(), (0, 9)])
def test_rows_and_sharing_change_no_loss_and_no_gradient(row_length, windows):
  model = make_model(config=dataclasses.replace(MODEL, windows=windows))
  examples = make_examples(12)
  alone = [only_batch([example], share=False) for example in examples]
  alone = Batch(*map(np.concatenate, zip(*alone, strict=True)))
  expected = run_gradients(model, alone, config=CONFIG)
  shared = only_batch(examples, row_length)
  assert np.ptp(shared.ends_BT[0]) > 0
  assert distance(run_gradients(model, shared, config=CONFIG), expected) < 3e-6
  apart = only_batch(examples, row_length, share=False)
  assert apart.tokens_BT.size >= shared.tokens_BT.size
  assert distance(run_gradients(model, apart, config=CONFIG), expected) < 3e-6


def test_an_example_of_weight_two_counts_as_two():
  one, other = make_examples(2)
  one = dataclasses.replace(one, weight=1.0)
  twice = dataclasses.replace(one, weight=2.0)
  a = run_gradients(make_model(), only_batch([twice, other]), config=CONFIG)
  b = run_gradients(make_model(), only_batch([one, one, other]), config=CONFIG)
  assert distance(a, b) < 1e-6


@pytest.mark.parametrize('remat', ['matmuls', 'full'])
def test_rematerialisation_changes_no_gradient(remat: Any):
  batch = only_batch(make_examples(6))
  config = dataclasses.replace(CONFIG, remat=remat)
  a = run_gradients(make_model(), batch, config=CONFIG)
  b = run_gradients(make_model(), batch, config=config)
  assert distance(a, b) < 1e-6


def test_parts_equal_one_big_batch():
  examples = make_examples(12)
  config = dataclasses.replace(CONFIG, rows=2)
  batch = only_batch(examples, rows=2)
  assert len(batch.tokens_BT) > 4
  a = run_gradients(make_model(), batch, config=CONFIG)
  b = run_gradients(make_model(), batch, config=config)
  assert distance(a, b) < 2e-6


@pytest.mark.parametrize('axes', [(2, 1, 1), (1, 1, 2), (1, 4, 1), (2, 2, 2)])
def test_every_mesh_takes_the_same_step(axes: tuple[int, int, int]):
  batch = only_batch(make_examples(12), shards=4)

  def step(mesh):
    with jax.set_mesh(mesh):
      model = make_model(mesh)
      state = init_state(CONFIG, model, mesh)
      where = [x.sharding for x in jax.tree.leaves((model, state))]
      model, state, metrics = update(
        model, state, put(batch, mesh), np.float32(1e-3), config=CONFIG
      )
      assert [x.sharding for x in jax.tree.leaves((model, state))] == where
      return metrics, model

  metrics, model = step(make_mesh(*axes))
  expected_metrics, expected = step(one_device())
  assert distance(metrics, expected_metrics) < 1e-5
  assert distance(model, expected) < 1e-4


@pytest.mark.parametrize('rows', [16, 1])  # At once, and in parts.
@pytest.mark.parametrize('axes', [(1, 4, 1), (2, 2, 2)])
@pytest.mark.parametrize(
  ('platform', 'remat', 'rank'),
  [('tpu', 'matmuls', 0), ('gpu', 'full', 0), ('gpu', 'full', 2)],
)
def test_gradients_that_are_cut_early_are_the_same(
  monkeypatch, axes, rows, platform, remat, rank
):
  """As on devices that share weights, where it saves memory."""
  config = dataclasses.replace(CONFIG, rows=rows, remat=remat, lora_rank=rank)
  mesh = make_mesh(*axes)
  with jax.set_mesh(mesh):
    trained, frozen = make_model(mesh), None
    if rank:
      key = jax.random.key(0)
      trained, frozen = lora.init_adapters(trained, rank, key), trained
    batch = put(only_batch(make_examples(12), rows=rows, shards=4), mesh)

    def run():
      run = jax.jit(lambda m, b, f: gradients(m, b, f, config=config))
      arguments = trained, batch, frozen
      return run(*arguments), _barriers(run, *arguments)

    expected, usual = run()
    monkeypatch.setattr(loss, 'platform', lambda: platform)
    found, more = run()
  assert distance(found, expected) < 1e-6
  assert more == usual + MODEL.layers


def test_nothing_is_cut_where_weights_are_whole_or_frozen(monkeypatch):
  monkeypatch.setattr(loss, 'platform', lambda: 'tpu')
  batch = only_batch(make_examples(6), shards=2)
  for axes, rank in (((2, 1, 1), 0), ((1, 2, 1), 2)):
    config = dataclasses.replace(CONFIG, lora_rank=rank)
    with jax.set_mesh(make_mesh(*axes)):
      model = make_model(make_mesh(*axes))
      trained, frozen = model, None
      if rank:
        trained = lora.init_adapters(model, rank, jax.random.key(0))
        frozen = model
      run = functools.partial(gradients, config=config)
      assert not _barriers(run, trained, batch, frozen)


def _barriers(run: Any, *arguments: Any) -> int:
  jaxpr = jax.make_jaxpr(run)(*arguments)
  names = [equation.primitive.name for equation in equations(jaxpr.jaxpr)]
  return names.count('optimization_barrier')


def test_no_array_of_the_size_of_all_logits_exists():
  config = dataclasses.replace(MODEL, vocab=50_000)
  model = jax.eval_shape(lambda: Transformer(config))
  batch = only_batch(make_examples(80), 1024)
  jaxpr = jax.make_jaxpr(lambda m, b: gradients(m, b, config=CONFIG))(
    model, batch
  )
  largest = max(
    math.prod(made.aval.shape)
    for equation in equations(jaxpr.jaxpr)
    for made in equation.outvars
  )
  assert largest <= batch.tokens_BT.size * config.vocab / 8


def test_norms_and_biases_are_not_decayed():
  config = dataclasses.replace(MODEL, qkv_bias=True, qk_norm=True, tied=False)
  model = jax.eval_shape(lambda: Transformer(config))
  flags = jax.tree_util.tree_leaves_with_path(decayed(model))
  decays = {sharding.leaf_name(path) for path, flag in flags if flag}
  assert decays == {
    'embed_VD',
    'head_VD',
    'qkv_DKPH',
    'o_KGHD',
    'gate_up_DCF',
    'down_FD',
  }


def test_optimizer_state_lives_where_its_parameters_do():
  mesh = make_mesh(2, 2, 2)
  for optimizer in ('adamw', 'adafactor'):
    config = dataclasses.replace(CONFIG, optimizer=optimizer)
    model = make_model(mesh)
    state = init_state(config, model, mesh)
    places = {x.shape: x.sharding for x in jax.tree.leaves(model)}
    for leaf in jax.tree.leaves(state):
      if leaf.ndim > 1 and leaf.shape in places:
        assert leaf.sharding == places[leaf.shape]


def test_fresh_adapters_change_nothing_and_merging_keeps_what_they_learnt():
  model = make_model()
  adapters = lora.init_adapters(model, 4, jax.random.key(1))
  merged = lora.merge(model, adapters, 2.0)
  assert same_bytes(merged, model)
  adapters = jax.tree.map(lambda x: x + 0.1, adapters)
  batch = only_batch(make_examples(6))
  config = dataclasses.replace(CONFIG, lora_rank=4, lora_alpha=8.0)
  attached, gradient = run_gradients(adapters, batch, model, config=config)
  merged = lora.merge(model, adapters, 2.0)
  assert jax.tree.structure(merged) == jax.tree.structure(model)
  loss, _ = run_gradients(merged, batch, config=CONFIG)
  assert abs(float(attached) - float(loss)) < 1e-5
  assert all(np.abs(x).max() > 0 for x in jax.tree.leaves(gradient))


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
