"""A run's programs compile for TPUs and GPUs, by their compilers, on a CPU.

For GPUs where there is a compiler (the extra gpu-compiler), and kernels are not
interpreted: TRITON_INTERPRET=0 JAX_SKIP_CUDA_CONSTRAINTS_CHECK=1 pytest ...
"""

import dataclasses
import importlib
import importlib.util
import os
import re
import sys

import jax
import pytest
from etils import epath

from bench import tpu
from bench.shapes import SHAPES
from rest import main
from rest.config import MeshConfig, MStepConfig, SamplerConfig
from rest.model import hardware, sharding
from rest.plan import compiled, elsewhere, programs
from rest.plan.estimate import count_parameters
from rest.sampler.table import Drawn

MODEL = dataclasses.replace(SHAPES['tiny'], layers=2, dtype='bfloat16')
ON_A_HOST = ('handover', 'prefill', 'decode', 'rearrange')
SMALL = {
  'mstep': MStepConfig(rows=1, row_length=256, share_prefixes=False),
  'sampling': SamplerConfig(rows=64, max_tokens=64, min_rows=4),
}

needs_compiler = pytest.mark.skipif(
  importlib.util.find_spec('libtpu') is None,
  reason='the package libtpu, the compiler of TPUs, is not installed',
)
needs_gpu_compiler = pytest.mark.skipif(
  os.environ.get('TRITON_INTERPRET') == '1'
  or importlib.util.find_spec('jax_cuda13_plugin') is None,
  reason='kernels are interpreted, or there is no compiler: see above',
)


def described(topology: str, tensor: int) -> programs.Setup:
  try:
    found = tpu.setup(topology, MODEL, tensor, rows=1)
  except (jax.errors.JaxRuntimeError, NotImplementedError) as error:
    pytest.skip(f'this libtpu describes no chips: {error}')
  return dataclasses.replace(found, **SMALL)


@needs_compiler
@pytest.mark.parametrize('program', programs.LOWERED)
def test_every_program_compiles_for_tpus(program):
  setup = described('v5e:2x2', tensor=2)  # Two chips a matrix product.
  for found in compiled.compile_all(setup, program):
    assert found.flops or program in ('handover', 'rearrange')
    assert 0 < found.total < setup.device.memory
    if program == 'train':
      # Attention forward, and its two gradients; nothing is made again.
      assert found.kernels == 3 * MODEL.layers
      assert 'all-gather' in found.collectives
    assert compiled.report(found, setup.device).startswith(found.name)


@needs_compiler
def test_gradients_of_all_layers_never_lie_whole_on_a_chip():
  """In 16 bits they would be two bytes a parameter; all else is small."""
  assert trained_wide('v5e:4x4', layers=6, width=512) < 1


@needs_gpu_compiler
def test_nor_on_a_gpu():
  assert trained_wide('h200:1x8', layers=16, width=1024) < 1


@needs_compiler
def test_a_call_of_decoding_copies_no_weights():
  """Those of gate and up alone are more than a byte a parameter."""
  model = dataclasses.replace(SHAPES['1.5b'], layers=2, vocab=MODEL.vocab)
  table = dataclasses.replace(SMALL['sampling'], rows=2048)
  setup = described('v5e:2x2', tensor=1)
  setup = dataclasses.replace(setup, model=model, sampling=table)
  (found,) = compiled.compile_all(setup, 'decode')
  assert found.temporary < count_parameters(model)


@needs_compiler
def test_a_step_of_decoding_on_tpus_has_no_loop():
  """Rows, or groups of logits, would come one after the other."""
  model = dataclasses.replace(MODEL, vocab=40_960)  # Is cut into groups.
  setup = dataclasses.replace(described('v5e:2x2', tensor=1), model=model)
  (call,) = programs.LOWERED['decode'](setup)
  text = call.program.compile().as_text()
  assert text.count(' while(') == 1  # Of steps.


def trained_wide(topology: str, **shape: int) -> float:
  """Returns temporary bytes of a step a parameter, all else made again."""
  wide = dataclasses.replace(
    *(MODEL,), ffn=4096, heads=4, head_width=128, **shape
  )
  m_step = dataclasses.replace(SMALL['mstep'], remat='full')
  setup = dataclasses.replace(
    *(described(topology, tensor=1),), model=wide, mstep=m_step
  )
  (found,) = compiled.compile_all(setup, 'train')
  return found.temporary / count_parameters(wide)


@needs_gpu_compiler
@pytest.mark.parametrize('topology', ('a100:1x1', 'h100:2x2', 'h200:1x2'))
@pytest.mark.parametrize('program', programs.LOWERED)
def test_every_program_compiles_for_gpus(program, topology):
  setup = described(topology, tensor=1)
  for found in compiled.compile_all(setup, program):
    assert 0 < found.total < setup.device.memory
    assert compiled.report(found, setup.device).startswith(found.name)
    # A prefix, questions and suffixes; or forward, and two gradients.
    attends = program == 'train' or found.name.startswith('decoding')
    assert found.kernels == (3 * MODEL.layers if attends else 0)


@needs_gpu_compiler
def test_a_config_is_compiled_for_gpus():
  first = next(compiled.of_run(planned('h100-2'), 'h100-2'))
  assert first.startswith('weights to the sampler: compiled in')
  assert 'of 60.00 GiB; planned' in first


def test_a_missing_compiler_of_gpus_is_named(monkeypatch):
  def none(**_):
    raise NotImplementedError('topology not implemented for cuda')

  monkeypatch.setattr('jax.experimental.topologies.get_topology_desc', none)
  with pytest.raises(ValueError, match=r"plugin, is not .*\[gpu-compiler\]'"):
    next(compiled.of_run(planned('h100-2'), 'h100-2'))


@pytest.mark.parametrize(
  'topology',
  [
    pytest.param('v5e:2x2', marks=needs_compiler),
    pytest.param('h200:1x4', marks=needs_gpu_compiler),
  ],
)
def test_a_head_that_devices_share_comes_once_not_to_each_chunk(topology):
  (step,) = programs.LOWERED['train'](described(topology, tensor=1))
  for body in bodies(step.program.compile().as_text()):
    assert not re.search(rf'{MODEL.vocab}\S* all-gather', body)


@needs_compiler
def test_gradients_that_two_axes_split_are_laid_where_they_are():
  (step,) = programs.LOWERED['train'](described('v5e:2x2', tensor=2))
  lines = step.program.compile().as_text().splitlines()
  assert not any('all-' in x and 'layout_constraint' in x for x in lines)


def bodies(text: str) -> list[str]:
  """Returns what is in the loops of a compiled program."""
  names = re.findall(r'body=%([\w.-]+)', text)
  found = [
    text.partition(f'\n%{name} ')[2].partition('\n}')[0] for name in names
  ]
  assert found and all(found)
  return found


@needs_compiler
@pytest.mark.parametrize('program', ON_A_HOST)
def test_a_host_of_several_samples_by_itself(program):
  """Their compiler refuses sums over four chips of a host in such a slice."""
  setup = described('v5e:4x4', tensor=1)
  assert setup.sampling_mesh.size == 4 < setup.mesh.size
  for found in compiled.compile_all(setup, program):
    if found.name == 'weights to the sampler':
      # In 16 bits; norms and biases in 32.
      _, gathered = found.collectives['all-gather']
      assert gathered < 2.1 * count_parameters(MODEL)
    else:
      assert not found.collectives


@needs_compiler
@pytest.mark.parametrize('program', ON_A_HOST)
def test_all_hosts_sample_in_step_in_larger_slices(program):
  """Their compiler refuses programs of one host's chips there."""
  setup = described('v5e:4x8', tensor=1)
  assert setup.sampling_mesh.size == setup.mesh.size == 32
  for lowered in programs.LOWERED[program](setup):
    text = lowered.program.compile().as_text()
    if program == 'decode':  # What was drawn comes to all, once a call.
      assert text.count('all-gather(') == len(Drawn._fields)
      assert not any('all-gather' in body for body in bodies(text))
    elif program != 'handover':
      assert 'all-' not in text


@needs_compiler
def test_a_config_is_compiled_for_a_slice():
  run = planned('v5e-4')
  first = next(compiled.of_run(run, 'v5e-4'))
  assert first.startswith('weights to the sampler: compiled in')
  assert 'of 15.52 GiB; planned' in first


def test_a_missing_compiler_is_named(monkeypatch):
  monkeypatch.setitem(sys.modules, 'libtpu', None)
  with pytest.raises(ValueError, match=r"libtpu, is not .*install -e '\.\[tpu"):
    next(compiled.of_run(planned('v5e-4'), 'v5e-4'))


def planned(devices):
  config = importlib.import_module('configs.arithmetic').get_config()
  return main.prepare(config, epath.Path('nowhere'), devices)


@pytest.mark.parametrize('program', ('prefill', 'decode', 'rearrange'))
def test_copies_of_the_weights_sample_without_a_word(program):
  setup = here(MeshConfig(data=2, fsdp=2))
  for found in compiled.compile_all(setup, program):
    assert not found.collectives, found.name


def test_devices_that_share_weights_exchange_logits_and_no_weights():
  setup = here(MeshConfig(data=2, tensor=2))
  (found,) = compiled.compile_all(setup, 'decode')
  _, gathered = found.collectives.get('all-gather', (0, 0))
  assert gathered < setup.sampling.rows * 100
  _, exchanged = found.collectives['all-to-all']
  assert exchanged <= 4 * setup.sampling.rows // 2 * MODEL.vocab


def here(mesh_config: MeshConfig) -> programs.Setup:
  mesh = sharding.make_mesh(mesh_config, jax.devices()[:4])
  device = hardware.cpu(4)
  return programs.Setup(
    *(MODEL, mesh, sharding.sampling_mesh(mesh, device), device),
    *(SMALL['mstep'], SMALL['sampling'], 40, 8, 5),
  )


@pytest.mark.parametrize(
  ('devices', 'name'),
  [
    *(('v5e-4', 'v5e:2x2'), ('v5e-16', 'v5e:4x4'), ('v6e-32', 'v6e:4x8')),
    *(('v5p-8', 'v5p:2x2x1'), ('v5p-32', 'v5p:2x2x4')),
    *(('v5p-256', 'v5p:4x4x8'), ('h100-2', 'h100:1x2')),
    ('h200-16', 'h200:2x8'),
  ],
)
def test_slices_have_the_shapes_that_google_gives_them(devices, name):
  device, count = hardware.parse(devices)
  assert elsewhere.topology(devices, device, count) == name


@pytest.mark.parametrize(
  ('devices', 'message'),
  [
    ('v5e-12', 'slice of 4, 8, 16 .* has 12'),
    ('v5e-1', 'slice of 4, 8, 16 .* has 1'),
  ],
)
def test_what_cannot_be_compiled_for_is_refused(devices, message):
  device, count = hardware.parse(devices)
  with pytest.raises(ValueError, match=message):
    elsewhere.topology(devices, device, count)
