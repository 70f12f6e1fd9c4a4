"""The model equals the reference of each family, with and without a cache."""

import dataclasses

import families
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from rest.model import transformer as lm
from rest.model import weights
from rest.model.attention import attention, plain_attention
from rest.model.sharding import MeshConfig, make_mesh, shardings

TINY = lm.ModelConfig(
  vocab=64,
  width=32,
  layers=2,
  heads=4,
  kv_heads=2,
  head_width=16,
  ffn=48,
  windows=(4, 0),
  qk_norm=True,
)


@pytest.fixture(scope='module', params=families.FAMILIES)
def family(request, tmp_path_factory):
  """A reference model, and ours read from its checkpoint."""
  pytest.importorskip('torch')
  pytest.importorskip('transformers')
  path = tmp_path_factory.mktemp(request.param)
  reference = families.write(request.param, path)
  mesh = make_mesh(MeshConfig(), jax.devices()[:1])
  return reference, weights.load(str(path), mesh, 'float32', families.LONGEST)


def random_model(config):
  draw = np.random.default_rng(0).normal
  shapes = jax.eval_shape(lambda: lm.Transformer(config))
  return jax.tree.map(
    lambda x: jnp.asarray(draw(0.3, 0.3, x.shape), 'f4'), shapes
  )


@pytest.fixture(scope='module')
def tiny():
  """A random model."""
  return random_model(TINY)


def tokens(rows: int, length: int) -> jax.Array:
  return jax.random.randint(jax.random.key(1), (rows, length), 0, 64)


def assert_close(found, expected):
  print(f'logits up to {np.abs(found - expected).max():.1e} apart')
  np.testing.assert_allclose(found, expected, atol=1e-4)


def reference_logits(reference, tokens_BT) -> np.ndarray:
  import torch

  with torch.no_grad():
    return reference(torch.tensor(np.asarray(tokens_BT))).logits.numpy()


@jax.jit
def logits_of(model, tokens_BT, positions_BT, ends_BT=None):
  if ends_BT is None:  # One sequence a row.
    ends_BT = jnp.full_like(tokens_BT, tokens_BT.shape[1])
  attend = plain_attention(model.config, ends_BT, positions_BT)
  x_BTD, _ = lm.backbone(lm.unstack(model), tokens_BT, positions_BT, attend)
  return lm.logits(model, x_BTD)


def whole(model, tokens_BT):
  """Logits of rows that hold one sequence each."""
  positions_BT = jnp.broadcast_to(
    jnp.arange(tokens_BT.shape[1]), tokens_BT.shape
  )
  return logits_of(model, tokens_BT, positions_BT)


@jax.jit
def step(model, tokens_BT, start, caches):
  """Logits of tokens that follow `start` others, and the new caches."""
  positions_T = start + jnp.arange(tokens_BT.shape[1])

  def attend(q, k, v, window, cache):
    k, v = (
      jax.lax.dynamic_update_slice_in_dim(old, new, start, axis=1)
      for old, new in zip(cache, (k, v), strict=True)
    )
    ahead_TS = positions_T[:, None] - jnp.arange(k.shape[1])[None]
    mask_TS = (ahead_TS >= 0) & (ahead_TS < (window or k.shape[1]))
    mask_BTS = jnp.broadcast_to(mask_TS[None], (len(q), *mask_TS.shape))
    return attention(model.config, q, k, v, mask_BTS), (k, v)

  positions_BT = jnp.broadcast_to(positions_T[None], tokens_BT.shape)
  x_BTD, caches = lm.backbone(
    lm.unstack(model), tokens_BT, positions_BT, attend, caches
  )
  return lm.logits(model, x_BTD), caches


def empty_caches(model, rows: int, length: int):
  c = model.config
  cache = (jnp.zeros((rows, length, c.kv_heads, c.head_width)),) * 2
  return [cache] * c.layers


def test_logits_equal_the_reference(family):
  reference, model = family
  tokens_BT = tokens(2, families.LONGEST)
  expected = reference_logits(reference, tokens_BT)
  assert np.std(expected) > 0.3  # Not so flat that anything passes.
  found = whole(model, tokens_BT)
  assert_close(found, expected)


def test_decoding_with_a_cache_equals_the_reference(family):
  """Logits of a prompt of 6 tokens, then of one token at a time."""
  reference, model = family
  tokens_BT = tokens(2, 14)
  caches = empty_caches(model, 2, 16)
  found, caches = step(model, tokens_BT[:, :6], 0, caches)
  found = [found]
  for t in range(6, 14):
    last, caches = step(model, tokens_BT[:, t : t + 1], t, caches)
    found.append(last)
  found = jnp.concatenate(found, axis=1)
  expected = reference_logits(reference, tokens_BT)
  assert_close(found, expected)


@pytest.mark.parametrize(
  'family',
  ['llama3', 'qwen2', 'qwen2_yarn', 'qwen3_yarn', 'phi4_mini'],
  indirect=True,
)
def test_far_positions_equal_the_reference(family):
  import torch

  reference, model = family
  tokens_BT = tokens(1, 4)
  positions_BT = jnp.asarray([[0, 20_000, 40_001, 60_002]])
  with torch.no_grad():
    expected = reference(
      torch.tensor(np.asarray(tokens_BT)),
      position_ids=torch.tensor(np.asarray(positions_BT)),
      attention_mask=torch.tril(torch.ones(1, 1, 4, 4)).log(),
    ).logits
  found = logits_of(model, tokens_BT, positions_BT)
  np.testing.assert_allclose(found, expected, atol=1e-4)


def test_packed_rows_equal_single_ones(tiny):
  tokens_BT = tokens(1, 16)
  ends_BT = jnp.asarray([[7] * 7 + [13] * 6 + [0] * 3])
  positions_BT = jnp.asarray([[*range(7), *range(6), 0, 0, 0]])
  found = logits_of(tiny, tokens_BT, positions_BT, ends_BT)
  for start, stop in (0, 7), (7, 13):
    expected = whole(tiny, tokens_BT[:, start:stop])
    np.testing.assert_allclose(found[:, start:stop], expected, atol=1e-5)


def test_a_window_hides_what_is_further_back():
  config = dataclasses.replace(TINY, layers=1, windows=(4,))
  model = random_model(config)
  tokens_BT = tokens(1, 9)
  base = whole(model, tokens_BT)
  changed = whole(model, tokens_BT.at[0, 2].add(1))
  differs_T = np.any(np.asarray(base) != np.asarray(changed), axis=-1)[0]
  assert differs_T.tolist() == [2 <= t < 6 for t in range(9)]


def test_layers_are_those_of_the_stack_which_is_left_alone(tiny):
  before = jax.tree.leaves(tiny)
  unrolled = lm.unstack(tiny)
  for index, layer in enumerate(unrolled.layers):
    expected = jax.tree.map(lambda leaf, i=index: leaf[i], tiny.layers)
    jax.tree.map(np.testing.assert_array_equal, layer, expected)
  assert all(a is b for a, b in zip(before, jax.tree.leaves(tiny), strict=True))
  assert unrolled.embed_VD[...] is tiny.embed_VD[...]
  assert isinstance(unrolled.layers, nnx.List)


@pytest.mark.parametrize(
  'mesh', [MeshConfig(8, 1, 1), MeshConfig(1, 4, 2), MeshConfig(2, 2, 2)]
)
def test_eight_devices_give_what_one_gives(mesh, tiny):
  expected = whole(tiny, tokens(8, 9))
  mesh = make_mesh(mesh)
  spread = jax.device_put(tiny, shardings(tiny, mesh))
  with jax.set_mesh(mesh):
    found = whole(spread, tokens(8, 9))
  np.testing.assert_allclose(found, expected, atol=1e-5)


def test_remat_changes_no_gradient(tiny):
  tokens_BT = tokens(2, 9)
  positions_BT = jnp.broadcast_to(jnp.arange(9), (2, 9))

  def loss(model, remat):
    attend = plain_attention(TINY, jnp.full_like(tokens_BT, 9), positions_BT)
    x_BTD, _ = lm.backbone(
      lm.unstack(model), tokens_BT, positions_BT, attend, remat=remat
    )
    return jnp.mean(lm.logits(model, x_BTD) ** 2)

  gradient = jax.jit(jax.grad(loss), static_argnums=1)
  plain, saved = gradient(tiny, None), gradient(tiny, jax.checkpoint)
  for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(saved), strict=True):
    assert np.any(np.asarray(a))
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_bfloat16_stays_near_float32(tiny):
  exact = whole(tiny, tokens(2, 9))
  half = jax.tree.map(lambda x: x, tiny)
  half.config = dataclasses.replace(TINY, dtype='bfloat16')
  rough = whole(half, tokens(2, 9))
  assert rough.dtype == jnp.float32
  assert 0 < jnp.max(jnp.abs(exact - rough)) < 0.1


def test_shape_of_a_7b_model_needs_no_memory():
  config = lm.ModelConfig(
    vocab=152_064,
    width=3584,
    layers=28,
    heads=28,
    kv_heads=4,
    head_width=128,
    ffn=18_944,
    tied=False,
    qkv_bias=True,
  )
  model = jax.eval_shape(lambda: lm.Transformer(config))
  count = sum(leaf.size for leaf in jax.tree.leaves(model))
  assert count == 7_615_616_512  # As Qwen2.5-7B's model card counts them.
