"""The M-step: gradients, packing, meshes, stop rules, exact resumption."""

import dataclasses
import math
import os
import resource
import signal
import subprocess
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rest.m_step.fine_tune import Diverged, FineTuned, MStepConfig, fine_tune
from rest.m_step.packing import Batch, Example, pack
from rest.m_step.schedule import Schedule, learning_rates
from rest.m_step.update import (
  decayed,
  gradients,
  held_out_loss,
  init_state,
  put,
  update,
)
from rest.model import lora, sharding
from rest.model.flash import has_kernel
from rest.model.transformer import ModelConfig, Transformer
from rest.types import Preempted
from tests.programs import equations

MODEL = ModelConfig(
  vocab=64, width=32, layers=2, heads=4, kv_heads=2, head_width=8, ffn=48
)
CONFIG = MStepConfig(
  learning_rate=3e-3,
  row_length=32,
  rows=8,
  epochs=4,
  eval_every=4,
  save_every=3,
  remat='none',
)
# What our kernels take, on a GPU.
WIDE = dataclasses.replace(MODEL, head_width=64, dtype='bfloat16')
LONG = dataclasses.replace(CONFIG, row_length=64)


def make_examples(count: int = 40, seed: int = 0) -> list[Example]:
  random = np.random.default_rng(seed)
  return [
    Example(
      tuple(random.integers(1, 64, random.integers(1, 9)).tolist()),
      tuple(random.integers(1, 64, random.integers(2, 16)).tolist()),
      float(random.choice([0.5, 1.0, 2.0])),
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
      tokens = jnp.array(example.prompt + example.completion)
      scores = log_probs(w, tokens[:-1])
      scores = scores[jnp.arange(len(tokens) - 1), tokens[1:]]
      total -= example.weight * scores[len(example.prompt) - 1 :].sum()
      weight += example.weight * len(example.completion)
    return total / weight

  with jax.enable_x64(True), jax.numpy_rank_promotion('allow'):
    exact = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), model)
    loss_64, gradient = jax.jit(jax.value_and_grad(loss))(exact)
    return float(loss_64), jax.tree.map(np.asarray, gradient)


def only_batch(examples: list[Example], config: MStepConfig = CONFIG) -> Batch:
  (batch,) = pack(examples, config.row_length, config.rows)
  return batch


run_gradients = jax.jit(gradients, static_argnames='config')


def test_gradients_equal_a_float64_reference():
  examples = make_examples(4)
  loss, gradient = run_gradients(
    make_model(), only_batch(examples), config=CONFIG
  )
  loss_64, reference = reference_gradients(make_model(), examples)
  assert abs(float(loss) - loss_64) < 1e-6 * loss_64
  assert distance(gradient, reference) < 2e-6


def test_packed_equals_unpacked():
  examples = make_examples(8)
  packed = only_batch(examples)
  assert packed.segments_BT.max() > 1
  alone = [only_batch([example]) for example in examples]
  unpacked = Batch(
    *(np.stack([x[0] for x in f]) for f in zip(*alone, strict=True))
  )
  loss, gradient = run_gradients(make_model(), packed, config=CONFIG)
  loss_1, gradient_1 = run_gradients(make_model(), unpacked, config=CONFIG)
  assert abs(float(loss) - float(loss_1)) < 1e-6
  assert distance(gradient, gradient_1) < 2e-6


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


def test_accumulation_equals_one_big_batch():
  batch = only_batch(make_examples(12))
  config = dataclasses.replace(CONFIG, accumulate=4)
  a = run_gradients(make_model(), batch, config=CONFIG)
  b = run_gradients(make_model(), batch, config=config)
  assert distance(a, b) < 2e-6


@pytest.mark.parametrize('axes', [(2, 1, 1), (1, 1, 2), (1, 4, 1), (2, 2, 2)])
def test_every_mesh_takes_the_same_step(axes: tuple[int, int, int]):
  batch = only_batch(make_examples(12))

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


def test_no_array_of_the_size_of_all_logits_exists():
  config = dataclasses.replace(MODEL, vocab=50_000)
  model = jax.eval_shape(lambda: Transformer(config))
  m_step = dataclasses.replace(CONFIG, row_length=512)
  batch = only_batch(make_examples(6), m_step)
  jaxpr = jax.make_jaxpr(lambda m, b: gradients(m, b, config=m_step))(
    model, batch
  )
  largest = max(
    math.prod(made.aval.shape)
    for equation in equations(jaxpr.jaxpr)
    for made in equation.outvars
  )
  assert largest <= batch.tokens_BT.size * config.vocab / 8


def test_bfloat16_tracks_float32():
  """Over 200 steps the loss curves stay within 2 % of each other."""
  config = dataclasses.replace(
    CONFIG, epochs=99, max_steps=200, stop='fixed_steps', eval_every=0
  )
  examples = make_examples(12)
  curves = []
  for dtype in ('float32', 'bfloat16'):
    losses = []
    fine_tune(
      make_model(config=dataclasses.replace(MODEL, dtype=dtype)),
      examples,
      config,
      one_device(),
      seed=0,
      on_step=lambda done, metrics, to=losses: to.append(metrics.loss),
    )
    curves.append(np.array(losses))
  exact, rounded = curves
  assert exact[-1] < 0.5 * exact[0]
  assert np.abs(rounded - exact).max() < 0.02 * exact[0]


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


@pytest.mark.parametrize(
  ('optimizer', 'rank', 'rate'), [('adamw', 4, 1e-2), ('adafactor', 0, 1e-1)]
)
def test_adafactor_and_adapters_lower_the_loss(optimizer: Any, rank, rate):
  examples = make_examples(12)
  config = dataclasses.replace(
    CONFIG,
    optimizer=optimizer,
    learning_rate=rate,
    lora_rank=rank,
    max_steps=8,
    epochs=8,
    stop='fixed_steps',
  )
  before = held_out_loss(make_model(), examples, config, one_device())
  result = fine_tune(make_model(), examples, config, one_device(), seed=0)
  after = held_out_loss(result.model, examples, config, one_device())
  assert after < 0.95 * before


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


def test_a_batch_that_is_not_finite_is_named():
  examples = make_examples(3)
  examples += [dataclasses.replace(examples[0], weight=3e38)] * 2
  with pytest.raises(Diverged, match=r'step 1: .* examples \[0, 1, 2, 3, 4\]'):
    fine_tune(make_model(), examples, CONFIG, one_device(), seed=0)


def test_learning_rates_rise_then_fall():
  config = MStepConfig(learning_rate=2.0, warmup=0.1, final_rate=0.25)
  rates = learning_rates(config, 100)
  assert rates.argmax() in (9, 10)
  assert rates.max() == 2.0
  assert (np.diff(rates[:10]) > 0).all()
  assert (np.diff(rates[10:]) < 0).all()
  assert 0.5 <= rates[-1] < 0.51
  constant = dataclasses.replace(config, schedule='constant', warmup=0.0)
  assert (learning_rates(constant, 10) == 2.0).all()


def test_rates_and_pauses_are_those_of_the_worked_examples():
  config = MStepConfig(
    learning_rate=3.0, warmup=0.3, schedule='linear', max_steps=12, epochs=99
  )
  rates = [1, 2, 3, 3, 2.57, 2.14, 1.71, 1.29, 0.86, 0.43]
  assert learning_rates(config, 10).round(2).tolist() == pytest.approx(rates)
  config = dataclasses.replace(config, eval_every=4, save_every=3)
  schedule = Schedule(make_examples(), config, 0)
  pauses = {schedule.next_pause(done) for done in range(12)}
  assert pauses == {3, 4, 6, 8, 9, 12}
  assert [n for n in range(13) if schedule.validates_after(n)] == [4, 8, 12]


@pytest.mark.parametrize(
  ('stop', 'scores', 'ends', 'chosen'),
  [
    ('best', {1: 0.1, 2: 0.3, 3: 0.2}, False, 2),
    ('best', {1: 0.3, 2: 0.3}, False, 1),
    ('first_drop', {1: 0.1, 2: 0.3}, False, 2),
    ('first_drop', {1: 0.1, 2: 0.3, 3: 0.2}, True, 2),
    ('first_drop', {1: 0.1, 2: 0.1}, True, 1),
    ('fixed_steps', {1: 0.3, 2: 0.1}, False, None),
  ],
)
def test_stop_rules(stop: Any, scores: dict, ends: bool, chosen: int | None):
  schedule = Schedule(make_examples(), MStepConfig(stop=stop, epochs=99), 0)
  assert schedule.ends(max(scores), scores) == ends
  assert schedule.chosen(scores) == chosen


def run(
  folder, should_stop=None, seed: int = 5, kernels: bool = False
) -> tuple[FineTuned, list]:
  """Fine-tunes; validation peaks after step 8."""
  losses = []
  result = fine_tune(
    make_model(config=WIDE if kernels else MODEL),
    make_examples(80 if kernels else 40),
    LONG if kernels else CONFIG,
    one_device(),
    seed,
    validate=lambda model, done: -abs(done - 8.0),
    folder=folder,
    on_step=lambda done, metrics: losses.append((done, metrics.loss)),
    should_stop=should_stop,
  )
  return result, losses


def test_the_best_model_is_returned_not_the_last(tmp_path):
  result, losses = run(tmp_path)
  assert result.summary['steps'] == len(losses) == 12
  assert result.summary['chosen'] == 8
  config = dataclasses.replace(CONFIG, stop='fixed_steps', eval_every=8)
  at_8 = []
  fine_tune(
    make_model(),
    make_examples(),
    config,
    one_device(),
    seed=5,
    validate=lambda m, n: at_8.append(jax.tree.map(np.asarray, m)) or 0.0,
  )
  assert same_bytes(result.model, at_8[0])


@pytest.mark.parametrize('stops', [(1,), (4, 1), (7, 2)])
def test_a_stopped_run_goes_on_to_the_same_bytes(tmp_path, stops):
  expected, losses = run(tmp_path / 'whole')
  for steps in stops:
    count = iter(range(1, 99))
    with pytest.raises(Preempted):
      run(tmp_path / 'torn', lambda n=steps, c=count: next(c) >= n)
  result, rest = run(tmp_path / 'torn')
  assert rest == losses[sum(stops) :]
  assert result.summary == expected.summary
  assert same_bytes(result.model, expected.model)


def test_a_finished_run_is_not_run_again(tmp_path):
  expected, _ = run(tmp_path)
  result, losses = run(tmp_path)
  assert not losses
  assert same_bytes(result.model, expected.model)
  assert result.summary == expected.summary


def test_checkpoints_of_another_training_are_refused(tmp_path):
  run(tmp_path)
  with pytest.raises(ValueError, match='other examples, seed or mstep'):
    run(tmp_path, seed=6)


@pytest.mark.parametrize('kernels', [False, True])
def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path, kernels):
  if kernels and not has_kernel(WIDE, 64, jax.devices()[0].platform):
    pytest.skip('on a GPU')
  expected, _ = run(tmp_path / 'whole', kernels=kernels)
  code = (
    'import jax; jax.config.update("jax_num_cpu_devices", 8)\n'
    'from tests.m_step import test_fine_tune\n'
    f'test_fine_tune.run({str(tmp_path / "torn")!r}, kernels={kernels})\n'
  )
  flags = os.environ.get('REST_TEST_FLAGS', os.environ.get('XLA_FLAGS', ''))
  environment = os.environ | {'XLA_FLAGS': flags}  # Compiled as it is here.
  command = [sys.executable, '-c', code]
  with subprocess.Popen(command, env=environment) as process:
    deadline = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < deadline:
      if (tmp_path / 'torn' / '3').exists():  # Training is under way.
        process.send_signal(signal.SIGKILL)
        break
      time.sleep(0.01)
  assert process.returncode == -signal.SIGKILL
  result, losses = run(tmp_path / 'torn', kernels=kernels)
  assert losses[0][0] > 3
  assert same_bytes(result.model, expected.model)
  assert result.summary == expected.summary


# When one array cannot be written, Orbax leaves the writers of the others.
@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')
def test_a_save_that_fails_ends_training_at_the_next_step(tmp_path):
  """No file may grow past 16 KiB: as good as a full disk."""
  config = dataclasses.replace(
    CONFIG, save_every=3, eval_every=0, stop='fixed_steps'
  )
  seen = []

  def on_step(done: int, metrics: Any) -> None:
    seen.append(done)
    time.sleep(0.2)  # The failing save is done by then.

  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 14, before[1]))
  try:
    with pytest.raises(ValueError, match='could not be written'):
      fine_tune(
        make_model(),
        make_examples(),
        config,
        one_device(),
        seed=5,
        folder=tmp_path,
        on_step=on_step,
      )
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
  assert seen[-1] < 6  # Where the next save would have found out.


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'learning_rate': -1.0}, r'mstep\.learning_rate must lie in'),
    ({'stop': 'never'}, r'mstep\.stop must be one of best'),
  ],
)
def test_bad_fields_are_refused_by_name(fields: dict, message: str):
  with pytest.raises(ValueError, match=message):
    MStepConfig(**fields)


def test_rows_that_do_not_split_over_devices_are_refused():
  config = dataclasses.replace(CONFIG, rows=6)
  mesh = make_mesh(4, 1, 1)
  with pytest.raises(ValueError, match=r'mstep\.rows must be divisible'):
    fine_tune(make_model(mesh), make_examples(), config, mesh, seed=0)


@pytest.mark.parametrize('wrong', [-1, MODEL.vocab])
def test_ids_that_the_model_has_not_are_refused(wrong: int):
  mesh = one_device()
  examples = [*make_examples(), Example((1, 2), (3, wrong))]
  message = rf'completion of example \d+: id {wrong} is not in the vocabulary'
  with pytest.raises(ValueError, match=message):
    fine_tune(make_model(mesh), examples, CONFIG, mesh, seed=0)
