"""The attention kernels, interpreted: values, gradients, sight, meshes."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rest.m_step.loss import REMATS
from rest.m_step.packing import Batch, Example, Shape, pack
from rest.model import sharding
from rest.model.attention import forest_mask, plain_attention
from rest.model.sharding import make_mesh
from rest.model.transformer import ModelConfig, Transformer
from tests.model.packed import distance, loss, make_config, make_model
from tests.programs import equations

flash = pytest.importorskip('rest.model.flash')
Blocks, Cut, sight = flash.Blocks, flash.Cut, flash.sight
pytestmark = pytest.mark.usefixtures('interpreted')

LENGTH = 64
# A tree is its trunk's length and its branches. Sequences shorter than a block,
# longer, ending at an edge and across one, padding at the end; one that fills
# the row; all padding; a prefix with questions with solutions; a bush.
FORESTS = (
  ((5, ()), (3, ()), (24, ()), (21, ())),
  ((LENGTH, ()),),
  (),
  ((32, ()), (32, ())),
  ((19, ((3, ((9, ()), (6, ()))), (0, ((7, ()),)), (4, ((8, ()), (1, ()))))),),
  ((1, ((40, ((1, ((2, ()), (3, ((5, ()), (1, ()))))),)), (2, ()))),),
)
BLOCKS = Blocks(
  forward=Cut(queries=32, keys=16, warps=4, stages=2),
  dq=Cut(queries=16, keys=32, warps=4, stages=2),
  dkv=Cut(queries=32, keys=16, warps=4, stages=2),
)
# As few programs as there can be: they are interpreted one by one.
LARGE = Blocks(*[Cut(queries=64, keys=32, warps=4, stages=2)] * 3)


def make_rows(forests=FORESTS) -> tuple[jax.Array, jax.Array]:
  """Returns ends_BT and positions_BT."""
  ends_BT = np.zeros((len(forests), LENGTH), np.int32)
  positions_BT = np.zeros_like(ends_BT)

  def grow(row: int, start: int, position: int, tree: Any) -> int:
    trunk, branches = tree
    top = end = start + trunk
    for branch in branches:
      end = grow(row, end, position + trunk, branch)
    ends_BT[row, start:top] = end
    positions_BT[row, start:top] = position + np.arange(trunk)
    return end

  for row, forest in enumerate(forests):
    start = 0
    for tree in forest:
      start = grow(row, start, 0, tree)
  return jnp.asarray(ends_BT), jnp.asarray(positions_BT)


def make_values(config: ModelConfig, rows: int) -> tuple[jax.Array, ...]:
  """Returns queries, keys, values and the gradient of what comes out."""
  random = np.random.default_rng(0)
  k, g, h = config.kv_heads, config.groups, config.head_width
  wide, narrow = (rows, LENGTH, k, g, h), (rows, LENGTH, k, h)
  return tuple(
    jnp.asarray(random.normal(size=shape), config.dtype)
    for shape in (wide, narrow, narrow, wide)
  )


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def run(config, blocks, window, rows, values):
  """Returns the output and the gradients of queries, keys and values."""
  *inputs, dout = values
  # Padding gives nothing that anything depends on.
  is_token = (rows[0] > 0)[:, :, None, None, None]
  if blocks:
    attend = flash.flash_attention(config, *rows, blocks)
  else:
    attend = plain_attention(config, *rows)
  out, pull = jax.vjp(lambda q, k, v: attend(q, k, v, window, None)[0], *inputs)
  gradients = pull(jnp.where(is_token, dout, 0))
  return (out if blocks else jnp.where(is_token, out, 0)), *gradients


@pytest.mark.parametrize(
  ('heads', 'window', 'cap'),
  [
    ((2, 2), 0, 0.0),
    ((1, 1), 7, 0.0),
    ((2, 6), 0, 1.5),
    ((1, 7), 20, 1.5),
  ],
)
def test_values_and_gradients_are_those_of_plain_attention(heads, window, cap):
  config = make_config(*heads, attention_softcap=cap)
  rows, values = make_rows(), make_values(config, len(FORESTS))
  found = run(config, BLOCKS, window, rows, values)
  expected = run(config, None, window, rows, values)
  assert distance(found, expected) < 1e-6


def test_16_bits_are_as_near_to_float32_as_in_plain_attention():
  # The interpreter has no bfloat16; on a GPU, `bench.training --check` has.
  config = make_config(dtype='float16')
  exact = make_config()
  rows, values = make_rows(), make_values(config, len(FORESTS))
  expected = run(exact, None, 0, rows, [x.astype(jnp.float32) for x in values])
  found = run(config, BLOCKS, 0, rows, values)
  assert all(x.dtype == jnp.float16 for x in found)
  plain = distance(run(config, None, 0, rows, values), expected)
  assert distance(found, expected) < 1.3 * plain < 0.01


def test_a_token_sees_its_own_path_and_of_it_a_window():
  """As those would who are asked one by one: parents, and theirs."""
  ends_BT, positions_BT = make_rows()
  for window in (0, 5):
    mask_BTS = forest_mask(ends_BT, positions_BT, window)
    for ends_T, positions_T, mask_TS in zip(
      ends_BT.tolist(), positions_BT.tolist(), mask_BTS.tolist(), strict=True
    ):
      path: list[int] = []
      for place, (end, position) in enumerate(
        zip(ends_T, positions_T, strict=True)
      ):
        del path[position:]
        path += [place] * (end > 0)
        seen = path[-window:] if end else []
        assert [i for i, x in enumerate(mask_TS[place]) if x] == seen


def test_the_row_that_the_module_draws():
  """As drawn, and told, in `rest.model.flash.kernels`."""
  ends_BT = jnp.asarray([[9, 9, 6, 6, 6, 6, 9, 9, 9, 0]])
  positions_BT = jnp.asarray([[0, 1, 2, 3, 4, 5, 2, 3, 4, 0]])
  static = flash.blocks.Static(1.0, 0.0, 0, BLOCKS)

  def visited(runs: Any) -> list[list[int]]:
    bounds = zip(*(x[0].tolist() for x in runs), strict=True)
    return [
      [m for n in zip(low, high, strict=True) for m in range(*n)]
      for low, high in bounds
    ]

  row = sight.Sight(ends_BT, positions_BT)
  keys = visited(sight.key_runs(static, row, 2, 2))
  assert keys == [[0], [0, 1], [0, 1, 2], [0, 3], [0, 3, 4]]
  queries = visited(sight.query_runs(static, row, 2, 2))
  assert queries == [[0, 1, 2, 3, 4], [1, 2], [2], [3, 4], [4]]
  near = visited(sight.key_runs(static._replace(window=2), row, 2, 2))
  assert near == [[0], [0, 1], [1, 2], [0, 3], [0, 3, 4]]


def test_the_runs_that_are_told_hold_what_is_seen():
  seen = jnp.asarray([[[1, 1, 0, 1, 0, 1, 0, 0, 1, 1], [0] * 10]], bool)
  low, high = sight._runs(seen)
  assert low[0, 0].tolist() == [0, 3, 8] and high[0, 0].tolist() == [2, 6, 10]
  assert (low[0, 1] >= high[0, 1]).all()


def test_padding_gives_zero_and_takes_no_gradient():
  config = make_config()
  rows = make_rows((((40, ()),), ()))
  values = make_values(config, 2)
  for x in run(config, BLOCKS, 0, rows, values):
    padding = x[rows[0] == 0]
    assert padding.size
    assert (padding == 0).all()


HALVES = ((32, ()), (32, ()))
BRANCHES = ((16, ((16, ()), (32, ()))),)
SMALL = Blocks(*[Cut(queries=16, keys=16, warps=4, stages=2)] * 3)


@pytest.mark.parametrize(
  ('forest', 'window', 'far', 'near'),
  [
    # Keys in blocks of another tree, before and after.
    (HALVES, 0, slice(0, 32), slice(32, 64)),
    (HALVES, 0, slice(32, 64), slice(0, 32)),
    # Keys that lie before the window's first block.
    (((64, ()),), 8, slice(0, 16), slice(48, 64)),
    # Another branch, between a branch and its trunk; and behind.
    (BRANCHES, 0, slice(16, 32), slice(32, 64)),
    (BRANCHES, 0, slice(32, 64), slice(16, 32)),
  ],
)
@pytest.mark.filterwarnings('ignore::RuntimeWarning')  # NumPy's, of them.
def test_blocks_that_are_not_seen_are_not_read(forest, window, far, near):
  """What is not a number there reaches nothing here."""
  config = make_config()
  rows, values = make_rows((forest,)), make_values(config, 1)
  spoilt = tuple(x.at[:, far].set(jnp.nan) for x in values)
  found = run(config, SMALL, window, rows, spoilt)
  expected = run(config, None, window, rows, values)
  for x, y in zip(found, expected, strict=True):
    assert np.allclose(x[:, near], y[:, near], atol=1e-6)


def make_examples(count: int) -> list[Example]:
  """Returns solutions of about half as many problems."""
  random = np.random.default_rng(0)

  def ids(most: int) -> tuple[int, ...]:
    return tuple(random.integers(1, 64, random.integers(1, most)).tolist())

  questions = [ids(9) for _ in range(1 + count // 2)]
  return [
    Example(questions[i % len(questions)], ids(25), prefix=(5, 6, 7, 8))
    for i in range(count)
  ]


def make_batch(examples: list[Example], rows: int, share: bool = True) -> Batch:
  return pack(examples, range(len(examples)), Shape(rows, LENGTH, 0), share)


def kernel_loss(model: Transformer, batch: Batch, remat=None):
  attend = flash.flash_attention(
    model.config, batch.ends_BT, batch.positions_BT, LARGE
  )
  return loss(model, batch, attend, remat)


def test_packed_equals_unpacked_and_plain_attention():
  config = make_config(qkv_bias=True, windows=(0, 12), attention_softcap=3.0)
  model = make_model(config)
  examples = make_examples(6)
  run = jax.jit(jax.value_and_grad(kernel_loss))
  packed = make_batch(examples, 3)
  alone = [make_batch([example], 1, False) for example in examples]
  alone = Batch(*map(np.concatenate, zip(*alone, strict=True)))
  found = run(model, packed)
  assert distance(found, run(model, alone)) < 2e-6
  plain = plain_attention(config, packed.ends_BT, packed.positions_BT)
  reference = jax.jit(jax.value_and_grad(lambda m: loss(m, packed, plain)))
  assert distance(found, reference(model)) < 2e-6


def test_every_mesh_gives_the_same_gradients():
  config = make_config(2, 1)
  batch = make_batch(make_examples(20), 8)
  run = jax.jit(jax.value_and_grad(kernel_loss))

  def on(*axes):
    devices = jax.devices()[: math.prod(axes)]
    mesh = make_mesh(sharding.MeshConfig(*axes), devices)
    with jax.set_mesh(mesh):
      model = make_model(config)
      model = jax.device_put(model, sharding.shardings(model, mesh))
      return run(model, batch)

  expected = run(make_model(config), batch)
  assert distance(on(1, 1, 1), expected) < 1e-6
  assert distance(on(2, 2, 2), expected) < 2e-6


@pytest.mark.parametrize(
  ('remat', 'forward'), [('none', 1), ('matmuls', 1), ('full', 2)]
)
def test_kept_outputs_are_not_made_again(remat, forward):
  config = make_config()
  batch = jax.tree.map(jnp.asarray, make_batch(make_examples(12), 8))
  model = jax.eval_shape(lambda: make_model(config))
  run = jax.grad(functools.partial(kernel_loss, remat=REMATS[remat]))
  with jax.set_mesh(make_mesh(sharding.MeshConfig(2, 2, 2))):
    program = jax.make_jaxpr(run)(model, batch).jaxpr
  names = [
    equation.params['callback'].callback_func.__name__
    for equation in equations(program)
    if equation.primitive.name == 'pure_callback'
  ]
  assert {name: names.count(name) for name in names} == {
    'flash_forward': forward * config.layers,
    'flash_dq': config.layers,
    'flash_dkv': config.layers,
  }
