"""Plans: for devices that are not there, and as measured where they were."""

import importlib
import json
import os
import pathlib
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from bench.shapes import SHAPES
from rest import main
from rest.config import MStepConfig
from rest.m_step import update
from rest.m_step.packing import Batch
from rest.m_step.update import abstract_state
from rest.model import hardware, weights
from rest.model.sharding import MeshConfig, make_mesh, plan_meshes, shardings
from rest.model.transformer import Transformer
from rest.plan import estimate, outline
from rest.plan.world import Run
from rest.sampler import SamplerConfig
from rest.sampler.capacity import size_tables

ROOT = pathlib.Path(__file__).parents[2]
GIB = 2**30
QWEN_7B = {
  'architectures': ['Qwen2ForCausalLM'],
  'hidden_size': 3584,
  'intermediate_size': 18_944,
  'num_hidden_layers': 28,
  'num_attention_heads': 28,
  'num_key_value_heads': 4,
  'vocab_size': 152_064,
  'max_position_embeddings': 32_768,
  'rms_norm_eps': 1e-6,
  'rope_theta': 1e6,
  'tie_word_embeddings': False,
  'hidden_act': 'silu',
  'eos_token_id': 2,
}


@pytest.fixture(scope='module')
def qwen(tmp_path_factory) -> str:
  """A directory as downloaded without weights; the tokenizer is our own."""
  folder = tmp_path_factory.mktemp('qwen')
  (folder / 'config.json').write_text(json.dumps(QWEN_7B))
  for name in ('tokenizer.model', 'tokenizer_config.json'):
    shutil.copy(ROOT / 'rest/model/assets/arithmetic-1m' / name, folder / name)
  return str(folder)


def flags(path: str) -> dict[str, object]:
  return {
    'model.path': path,
    'task.path': str(ROOT / 'tests/data/tasks/math'),
    'task.num_validation': 2,
    # Our tokenizer of 1,024 pieces takes more of them than Qwen's.
    'sampling.max_prompt_tokens': 4096,
  }


def plan_for(path: str, devices: str, **changes: object) -> Run:
  config = importlib.import_module('configs.math').get_config()
  changes = {k.replace('__', '.'): v for k, v in changes.items()}
  config.update_from_flattened_dict(flags(path) | changes)
  return main.prepare(config, epath.Path('nowhere'), devices)


def test_prompts_that_are_not_shared_are_counted_with_each_solution(qwen):
  fields = {'mstep__remat': 'full', 'mstep__optimizer': 'adafactor'}
  shared = plan_for(qwen, 'h200-4', **fields)
  alone = plan_for(qwen, 'h200-4', mstep__share_prefixes=False, **fields)
  batch = shared.config.mstep.batch
  assert batch * shared.world.prefix > 4 * shared.config.mstep.row_length
  assert not outline.in_parts(shared)
  assert outline.in_parts(alone)


def test_the_m_step_needs_a_sampler_only_where_it_validates(qwen):
  fields = {'mstep__remat': 'full', 'mstep__optimizer': 'adafactor'}
  plan_for(qwen, 'h200-4', **fields)
  with pytest.raises(
    ValueError, match=r'Validation within .*mstep\.eval_every=0'
  ):
    plan_for(qwen, 'h200-4', mstep__eval_every=100, **fields)


def test_a_plan_touches_no_device(qwen, tmp_path):
  """On a machine where JAX finds none at all."""
  fields = flags(qwen) | {'mesh.data': 1, 'mesh.fsdp': 16, 'mesh.tensor': 4}
  done = subprocess.run(
    [
      *(sys.executable, '-m', 'rest.main', '--config=configs/math.py'),
      *('--dry_run', '--plan_for=v5p-128', f'--workdir={tmp_path}/run'),
      *(f'--config.{name}={value}' for name, value in fields.items()),
    ],
    cwd=ROOT,
    env={**os.environ, 'JAX_PLATFORMS': 'none'},
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  assert "64 x v5p, of which 4 sample together: {'data': 1" in done.stdout
  assert 'compiles  training 2' in done.stdout
  assert 'device-hours' in done.stdout
  assert not list(tmp_path.iterdir())


def test_the_plan_of_a_sweep_is_for_the_devices_that_are_named(tmp_path):
  command = [
    *(sys.executable, '-m', 'rest.experiment', '--plan_for=h200-2'),
    '--config=configs/ablations/reset_vs_continue.py',
    f'--workdir={tmp_path}/sweep',
  ]
  told = subprocess.run(
    [*command, '--dry_run', '--config.seeds=(0,)'],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert told.returncode == 0, told.stderr
  assert told.stdout.count('2 x h200, of which 2 sample together') == 3  # Arms.
  refused = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
  assert refused.returncode == 2
  assert 'add --dry_run' in refused.stderr
  assert not (tmp_path / 'sweep').exists()


@pytest.mark.parametrize(
  ('devices', 'mesh', 'count', 'groups'),
  [
    ('v6e-64', (1, 32, 2), 64, 16),
    ('v5p-128', (1, 16, 4), 64, 16),
    ('v5p-256', (16, 8, 1), 128, 32),
  ],
)
def test_a_pod_holds_its_share(qwen, devices, mesh, count, groups):
  """Qwen2.5-7B on MATH: weights and Adam's state split as the mesh says."""
  axes = dict(zip(('data', 'fsdp', 'tensor'), mesh, strict=True))
  fields = {f'mesh.{name}': size for name, size in axes.items()}
  run = plan_for(qwen, devices, mstep__row_length=4096, **fields)
  world = run.world
  step = estimate.step_memory(
    world.model, run.config.mstep, world.mesh, world.device
  )
  assert world.mesh.size == count
  assert world.mesh.size // world.sampling_mesh.size == groups
  share = 4 * 7.6156e9 / (axes['fsdp'] * axes['tensor'])
  assert step.weights == pytest.approx(share, rel=0.01)
  assert step.optimizer == pytest.approx(2 * share, rel=0.01)
  tokens = 4096
  # Of a layer's matrix products, in bfloat16; a heads' share of each.
  width, ffn, heads = 3584, 18_944 / axes['tensor'], 4608 / axes['tensor']
  kept = 2 * 28 * tokens * (3 * width + heads + 2 * ffn)
  assert step.activations == pytest.approx(kept, rel=0.01)
  assert step.total < world.device.memory
  cache = world.tables[0].total_bytes - world.tables[0].weight_bytes
  assert 0 < cache < world.device.memory
  assert world.tables[0].weight_bytes == pytest.approx(
    2 * 7.6156e9 / axes['tensor'], rel=0.01
  )


def test_a_slice_that_samples_in_step_is_planned(qwen):
  axes = {'mesh__data': 1, 'mesh__fsdp': 32, 'mesh__tensor': 2}
  least = {'mstep__remat': 'full', 'mstep__rows': 1}
  text = outline.describe(plan_for(qwen, 'v5e-64', **axes, **least))
  assert '64 x v5e, of which 64 sample together' in text
  assert 'hand-over 1,' in text


def test_a_device_has_as_many_rows_in_step_as_else():
  sizes = []
  for slice_ in ('v5e-4', 'v5e-64'):
    device, count = hardware.parse(slice_)
    axes = MeshConfig(data=1, fsdp=-1, tensor=2)
    _, mesh = plan_meshes(axes, count, device)
    assert mesh.size == count
    config = SamplerConfig(max_prompt_tokens=832)
    (found,) = size_tables(config, SHAPES['7b'], mesh, 640, 32, device)
    sizes.append((found.shape.size / count, found.total_bytes))
  assert sizes[0] == sizes[1]


def test_a_budget_of_8192_tokens_is_planned(qwen):
  axes = {'mesh__data': 1, 'mesh__fsdp': 8}
  run = plan_for(qwen, 'h200-8', sampling__max_tokens=8192, **axes)
  first, *_, last = run.world.tables
  (usual,) = plan_for(qwen, 'h200-8', **axes).world.tables
  assert first.limit < last.limit == 8192
  assert max(first.total_bytes, last.total_bytes) < run.world.device.memory
  # As many as memory is for.
  assert last.shape.size < first.shape.size <= usual.shape.size
  text = outline.describe(run)
  assert 'after 8192 tokens' in text
  assert f'longer ones in {last.shape.size} rows' in text
  # The longest prompt of a training problem, and one token too few behind it.
  prompt = run.world.prefix + max(run.world.questions['train'])
  assert f'solutions of more than {8193 - prompt} are left out' in text
  roomy = {'mstep__row_length': 8191 + prompt, 'mstep__optimizer': 'adafactor'}
  run = plan_for(qwen, 'h200-8', sampling__max_tokens=8192, **axes, **roomy)
  assert 'left out' not in outline.describe(run)
  with pytest.raises(ValueError, match=r'sampling\.max_tokens=32000.* 32768'):
    plan_for(qwen, 'h200-8', sampling__max_tokens=32_000, **axes)


@pytest.mark.parametrize(
  ('devices', 'changes', 'message'),
  [
    ('v5p-128', {'mesh__tensor': 8}, r'mesh\.tensor=8 must divide the 4 dev'),
    (
      'v6e-64',
      {'mesh__data': 32, 'mesh__tensor': 2},
      r'M-step needs .*raise mesh\.fsdp \(now 1\)',
    ),
    (
      'v6e-64',
      {'mesh__fsdp': 32, 'mesh__tensor': 2, 'mstep__rows': 256},
      r'M-step needs .*lower mstep\.rows \(now 256\)',
    ),
    (
      'v5e-16',
      {'mesh__fsdp': 16, 'mesh__data': 1},
      r'sampler needs .*mesh\.tensor',
    ),
    (
      'v5e-16',
      {
        'mesh__data': 2,
        'mesh__fsdp': 4,
        'mesh__tensor': 2,
        'mstep__lora_rank': 16,
        'mstep__remat': 'full',
        'mstep__rows': 1,
      },
      r'weights to the sampler .*raise mesh\.fsdp \(now 4\)',
    ),
    (
      'h200-1',
      {'mstep__row_length': 4096, 'mstep__batch': 4, 'mstep__eval_every': 9},
      r"Validation .*em\.validation='loss'",
    ),
    ('v5e-6', {}, 'comes in hosts of 4'),
    ('tpu-4', {}, r"--plan_for must be .*got 'tpu-4'"),
  ],
)
def test_what_does_not_fit_is_refused_by_field(
  qwen, monkeypatch, devices, changes, message
):
  monkeypatch.setenv('XLA_PYTHON_CLIENT_MEM_FRACTION', '0.97')
  with pytest.raises(ValueError, match=message):
    plan_for(qwen, devices, **changes)


@pytest.mark.parametrize(
  ('shape', 'fields', 'gib'),
  [
    ('1.5b', {'rows': 16}, 71),
    ('1.5b', {'rows': 16, 'remat': 'none'}, 163),
    ('7b', {'rows': 3}, 133),
    ('7b', {'rows': 4}, 85.1 + 53.6),
  ],
)
def test_the_estimate_is_what_was_measured(shape, fields, gib):
  """Within 10 %, on one H200 with cuDNN's attention (bench/NOTES.md).

  It kept what the kernel keeps.
  """
  device, _ = hardware.parse('h200-1')
  mesh, _ = plan_meshes(MeshConfig(), 1, device)
  step = estimate.step_memory(
    SHAPES[shape], MStepConfig(row_length=2048, **fields), mesh, device
  )
  assert step.total / GIB == pytest.approx(gib, rel=0.1)


@pytest.mark.parametrize(
  ('shape', 'slice_', 'rows', 'remat', 'gib'),
  [
    ('1.5b', 'v5e-4', 1, 'matmuls', 10.88),
    ('1.5b', 'v5e-4', 1, 'full', 9.43),
    ('1.5b', 'v5e-16', 1, 'matmuls', 9.77),
    ('1.5b', 'v5e-16', 1, 'full', 5.21),
    ('7b', 'v5e-64', 1, 'full', 11.45),
    ('7b', 'v5p-32', 1, 'matmuls', 17.49),
    ('1.5b', 'h200-1', 8, 'matmuls', 46.16),
    ('1.5b', 'h200-2', 8, 'matmuls', 35.07),
    ('7b', 'h200-8', 8, 'matmuls', 64.83),
    ('7b', 'a100-8', 4, 'matmuls', 40.99),
  ],
)
def test_the_estimate_is_what_a_compiler_says(shape, slice_, rows, remat, gib):
  """Within 10 %: rows of 2,048 on each device (bench/NOTES.md)."""
  device, count = hardware.parse(slice_)
  mesh, _ = plan_meshes(MeshConfig(data=1, fsdp=count), count, device)
  m_step = MStepConfig(
    rows=rows,
    row_length=2048,
    share_prefixes=device.platform == 'gpu',
    remat=remat,
  )
  step = estimate.step_memory(SHAPES[shape], m_step, mesh, device)
  assert step.total / GIB == pytest.approx(gib, rel=0.1)


def test_calls_are_as_short_as_the_smallest_table_allows():
  steps, config = {}, SamplerConfig(max_prompt_tokens=832)
  for shape, slice_ in (('1.5b', 'h200-1'), ('7b', 'h200-1'), ('7b', 'v5p-2')):
    device, _ = hardware.parse(slice_)
    mesh, _ = plan_meshes(MeshConfig(), 1, device)
    (found,) = size_tables(config, SHAPES[shape], mesh, 640, 32, device)
    steps[shape, slice_] = found.steps
    # A step reads the weights, and takes two milliseconds beside them.
    shortest = 2e-3 + found.weight_bytes / device.bandwidth
    assert found.steps * shortest >= 8e-3
    assert found.steps * shortest < 2 * 8e-3
  assert steps == {
    ('1.5b', 'h200-1'): 4,
    ('7b', 'h200-1'): 2,
    ('7b', 'v5p-2'): 2,
  }


def test_rates_are_those_measured_and_scale_with_the_device():
  h200, _ = hardware.parse('h200-1')
  v5e, _ = hardware.parse('v5e-1')
  for shape, drawn, trained in (
    ('1.5b', 108_062, 58_084),
    ('7b', 30_633, 11_824),
  ):
    rates = estimate.rates(SHAPES[shape], 2048, False, h200)
    assert rates is not None
    assert rates.drawn == pytest.approx(drawn, rel=0.01)
    assert rates.trained == pytest.approx(trained, rel=0.01)
    shared = estimate.rates(SHAPES[shape], 2048, True, h200)
    assert shared is not None
    assert shared.drawn == rates.drawn
    assert shared.trained < 0.6 * rates.trained
    slower = estimate.rates(SHAPES[shape], 2048, False, v5e)
    assert slower is not None
    assert slower.drawn == pytest.approx(drawn * 819 / 4800, rel=0.01)
    assert slower.trained == pytest.approx(trained * 197 / 990, rel=0.01)
  assert estimate.rates(SHAPES['tiny'], 2048, True, hardware.cpu(8)) is None


def test_the_estimate_agrees_with_the_compiler():
  """The step of the embedded set: within 10 % of XLA's own count."""
  config = importlib.import_module('configs.arithmetic').get_config()
  model = weights.read_config(str(ROOT / config.model.path), 'float32')
  m_step = MStepConfig(**config.mstep)
  mesh = make_mesh(MeshConfig(), jax.devices()[:1])
  shapes = jax.eval_shape(lambda: Transformer(model))
  trained = jax.tree.map(
    lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
    shapes,
    shardings(shapes, mesh),
  )
  state = abstract_state(m_step, trained, mesh)
  rows = np.zeros((m_step.rows, m_step.row_length), np.int32)
  batch = Batch(rows, rows, rows, rows, rows.astype(np.float32))
  places = jax.tree.map(lambda x: x.sharding, (trained, state))
  leaves, tree = jax.tree.flatten(places)
  step = update._compiled(m_step, tuple(leaves), tree)
  with jax.set_mesh(mesh):
    lowered = step.lower(trained, state, batch, jnp.float32(0), None)
    found = lowered.compile().memory_analysis()
  assert found is not None
  found = found.argument_size_in_bytes + found.temp_size_in_bytes
  planned = estimate.step_memory(model, m_step, mesh, hardware.cpu(1))
  assert planned.total == pytest.approx(found, rel=0.1)
