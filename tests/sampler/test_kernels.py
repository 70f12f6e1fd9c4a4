"""The kernels of decoding against plain attention, their reference."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rest.model.sharding import MeshConfig, make_mesh
from rest.model.transformer import ModelConfig, query_scale
from rest.sampler import attention
from rest.sampler.table import TableShape, Where, empty_table

triton = pytest.importorskip('triton')
tl = triton.language
kernels = pytest.importorskip('rest.sampler.kernels')
options, softmax = kernels.options, kernels.softmax
shared = pytest.importorskip('rest.model.launch')
begin, grow = shared.begin, shared.grow
pytestmark = pytest.mark.usefixtures('interpreted')


@pytest.mark.parametrize(
  'heads, groups, width, rows, prefix, stretch, dtype, window, cap',
  [
    (2, 6, 32, 8, 64, 512, 'float32', 0, 0.0),
    (2, 3, 32, 4, 0, 512, 'bfloat16', 0, 0.0),
    (1, 2, 16, 1, 64, 32, 'float32', 37, 5.0),
    (1, 2, 16, 4, 64, 32, 'float32', 70, 0.0),
    (2, 3, 32, 3, 0, 32, 'bfloat16', 0, 0.0),
  ],
)
def test_the_kernels_equal_plain_attention(
  heads, groups, width, rows, prefix, stretch, dtype, window, cap
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
  question_QE = random.integers(1, 60, (slots, 2))
  question_QE[2] = 0  # Nothing is read, and nothing made of it.
  drawn_QR = random.integers(0, 95, (slots, rows))
  drawn_QR[:2, 0] = 0, 64  # No key, and two whole stretches.
  where = Where(
    jnp.int32(max(0, prefix - 20)),
    jnp.asarray(question_QE, jnp.int32),
    jnp.asarray(random.integers(0, 2, (slots, rows)), jnp.int32),
    jnp.asarray(drawn_QR, jnp.int32),
  )
  empty_BKH = jnp.zeros((shape.size, heads, width), dtype)
  k_BKH, v_BKH = normal(empty_BKH), normal(empty_BKH)
  q_BKGH = normal(jnp.zeros((shape.size, heads, groups, width), dtype))

  @jax.jit
  def reference(q_BKGH, k_BKH, v_BKH, cache, where):
    one = (x[:, None] for x in (q_BKGH, k_BKH, v_BKH))
    return attention.decode_attention(
      config, 96, window, False, True, *one, cache, where
    )

  blocks = kernels.Blocks(
    prefix_queries=16, prefix_keys=16, question_keys=32, stretch=stretch
  )

  @jax.jit
  def interpreted(q_BKGH, k_BKH, v_BKH, cache, where):
    q_BKGH *= jnp.asarray(query_scale(config), dtype)
    cache = cache._replace(k2=jnp.swapaxes(cache.k2, 2, 3))
    out_BKGH, k2_BKSH, v2_BKSH = kernels.attend(
      *(q_BKGH, k_BKH, v_BKH, cache, where),
      kernels.Options(window, cap, blocks),
    )
    return out_BKGH, jnp.swapaxes(k2_BKSH, 2, 3), v2_BKSH

  given = (q_BKGH, k_BKH, v_BKH, cache, where)
  expected, suffix = reference(*given)
  out_BKGH, *grown = interpreted(*given)
  tolerance = 1e-5 if dtype == 'float32' else 2e-2
  np.testing.assert_allclose(
    np.asarray(out_BKGH, np.float32),
    np.asarray(expected[:, 0], np.float32),
    atol=tolerance,
  )
  for mine, reference in zip(grown, suffix, strict=True):
    np.testing.assert_array_equal(mine, reference)


@triton.jit
def told(score_ptr, v_ptr, part, grown_ptr, merged_ptr, fixed):
  """The examples of `grow` and of `merge`: three numbers each."""
  one = tl.arange(0, 1)
  out_MH, top_M, total_M = begin(1, 1)
  for block in range(2):
    key_S = block * 2 + tl.arange(0, 2)
    score_MS = tl.load(score_ptr + key_S)[None, :]
    v_SH = tl.load(v_ptr + key_S)[:, None]
    out_MH, top_M, total_M = grow(out_MH, top_M, total_M, score_MS, v_SH, 1.0)
  tl.store(grown_ptr + one, tl.sum(out_MH, 1))
  tl.store(grown_ptr + 1 + one, top_M)
  tl.store(grown_ptr + 2 + one, total_M)
  total_M = tl.full((1,), 1.0, tl.float32)
  out_MH, top_M, total_M = softmax.merge(
    total_M[:, None] * 4, total_M * 0, total_M, part, one, one == 0
  )
  tl.store(merged_ptr + one, tl.sum(out_MH, 1))
  tl.store(merged_ptr + 1 + one, top_M)
  tl.store(merged_ptr + 2 + one, total_M)


def test_the_examples_that_the_softmax_tells():
  def floats(*values):
    return jnp.asarray(values, jnp.float32)

  scores, values = floats(1, 3, 4, shared.NEVER.value), floats(8, 0, 1, 5)
  part = floats(8), floats(np.log2(3)), floats(1)
  three = jax.ShapeDtypeStruct((3,), jnp.float32)
  grown, merged = shared.launch(
    told, (1,), [scores, values, part], [three, three], None, (1, 1)
  )
  # Weights are 2^1, 2^3 and 2^4 of 26, relative to the last.
  np.testing.assert_allclose(grown, [1 + 8 / 8, 4, 1.625], rtol=1e-6)
  np.testing.assert_allclose(merged, [28 / 3, np.log2(3), 4 / 3], rtol=1e-6)


def test_few_programs_read_short_stretches():
  def cut(keys, programs):
    return options.stretch_of(keys, programs, 32, kernels.Blocks())

  assert [cut(6144, programs) for programs in (256, 512, 4096)] == [
    *(768, 1536, 6144)
  ]
  assert cut(512, 1) == 512


def test_tiles_and_blocks_are_powers_of_two():
  assert [options.tile_for(n) for n in (6, 16, 40)] == [16, 16, 64]
  assert [options.block_of(96, most) for most in (64, 16)] == [32, 16]
