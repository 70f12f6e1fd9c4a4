"""The kernels of decoding against plain attention, their reference."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rest.model.sharding import MeshConfig, make_mesh
from rest.model.transformer import ModelConfig, query_scale
from rest.sampler import attention
from rest.sampler.kernels import Blocks, Options, attend, options, softmax
from rest.sampler.table import TableShape, Where, empty_table


@pytest.mark.parametrize(
  'heads, groups, width, rows, prefix, dtype, window, cap',
  [
    (2, 6, 32, 8, 64, 'float32', 0, 0.0),
    (2, 3, 32, 4, 0, 'bfloat16', 0, 0.0),
    (1, 2, 16, 1, 64, 'float32', 37, 5.0),
  ],
)
def test_the_kernels_equal_plain_attention(
  heads, groups, width, rows, prefix, dtype, window, cap
):
  config = ModelConfig(
    vocab=8,
    width=8,
    layers=1,
    heads=heads * groups,
    kv_heads=heads,
    head_width=width,
    ffn=8,
    attention_softcap=cap,
    dtype=dtype,
  )
  mesh = make_mesh(MeshConfig(), jax.devices()[:1])
  slots, random = 3, np.random.default_rng(0)
  shape = TableShape(slots, rows, prefix, 64, 96, 8)

  def normal(x):
    return jnp.asarray(random.standard_normal(x.shape), x.dtype)

  cache = jax.tree.map(normal, empty_table(config, shape, mesh).caches[0])
  where = Where(
    jnp.int32(max(0, prefix - 20)),
    jnp.asarray(random.integers(1, 60, (slots, 2)), jnp.int32),
    jnp.asarray(random.integers(0, 2, (slots, rows)), jnp.int32),
    jnp.asarray(random.integers(0, 95, (slots, rows)), jnp.int32),
  )
  empty_BKH = jnp.zeros((shape.size, heads, width), dtype)
  k_BKH, v_BKH = normal(empty_BKH), normal(empty_BKH)
  q_BKGH = normal(jnp.zeros((shape.size, heads, groups, width), dtype))

  @jax.jit
  def reference(q_BKGH, k_BKH, v_BKH, cache, where):
    one = (x[:, None] for x in (q_BKGH, k_BKH, v_BKH))
    return attention.decode_attention(
      config, 96, window, False, *one, cache, where
    )

  blocks = Blocks(prefix_queries=16, prefix_keys=16, question_keys=32)

  # Compiled in a hurry: to be interpreted, the kernels become long programs.
  @functools.partial(
    jax.jit, compiler_options={'xla_backend_optimization_level': 0}
  )
  def kernels(q_BKGH, k_BKH, v_BKH, cache, where):
    q_BKGH *= jnp.asarray(query_scale(config), dtype)
    cache = cache._replace(k2=jnp.swapaxes(cache.k2, 2, 3))
    out_BKGH, k2_BKSH, v2_BKSH = attend(
      *(q_BKGH, k_BKH, v_BKH, cache, where),
      Options(window, cap, blocks, interpret=True),
    )
    return out_BKGH, jnp.swapaxes(k2_BKSH, 2, 3), v2_BKSH

  given = (q_BKGH, k_BKH, v_BKH, cache, where)
  expected, suffix = reference(*given)
  out_BKGH, *grown = kernels(*given)
  tolerance = 1e-5 if dtype == 'float32' else 2e-2
  np.testing.assert_allclose(
    np.asarray(out_BKGH, np.float32),
    np.asarray(expected[:, 0], np.float32),
    atol=tolerance,
  )
  for mine, reference in zip(grown, suffix, strict=True):
    np.testing.assert_array_equal(mine, reference)


def test_blocks_of_keys_change_nothing():
  # The example of `softmax.grow`: logits 0 and ln 3, values 4 and 8.
  one = jnp.ones((1, 1))
  state = softmax.begin(1, 1)
  seen_MS = jnp.ones((1, 1), bool)
  state = softmax.grow(state, one, 0 * one, 4 * one, seen_MS, 0.0)
  found = (state.out_MH[0, 0], state.max_M[0], state.sum_M[0])
  assert found == (4, 0, 1)
  state = softmax.grow(state, one, np.log(3) * one, 8 * one, seen_MS, 0.0)
  found = (state.out_MH[0, 0], state.max_M[0], state.sum_M[0])
  np.testing.assert_allclose(found, [28 / 3, np.log(3), 4 / 3], rtol=1e-6)


def test_tiles_and_blocks_are_powers_of_two():
  assert [options.tile_for(n) for n in (6, 16, 40)] == [16, 16, 64]
  assert [options.block_of(96, most) for most in (64, 16)] == [32, 16]
  spec = options.block('MKA', 'AKM.', None, None, 16, 32)
  assert spec.index_map(2, 0, 1) == (1, 0, 2, 0)
