"""A run's programs compile for TPUs, by their own compiler, on this machine."""

import dataclasses
import importlib.util

import jax
import pytest

from bench import tpu
from bench.shapes import SHAPES
from rest.config import MStepConfig, SamplerConfig

MODEL = dataclasses.replace(SHAPES['tiny'], layers=2, dtype='bfloat16')


@pytest.fixture(scope='module')
def setup() -> tpu.Setup:
  """Two rows of chips, two chips a matrix product."""
  if importlib.util.find_spec('libtpu') is None:
    pytest.skip('the package libtpu, the compiler of TPUs, is not installed')
  try:
    found = tpu.setup('v5e:2x2', MODEL, tensor=2, rows=1)
  except (jax.errors.JaxRuntimeError, NotImplementedError) as error:
    pytest.skip(f'this libtpu describes no chips: {error}')
  return dataclasses.replace(
    found,
    mstep=MStepConfig(rows=1, row_length=256, share_prefixes=False),
    sampling=SamplerConfig(rows=64, max_tokens=64),
  )


@pytest.mark.parametrize('program', tpu.PROGRAMS)
def test_every_program_compiles_for_tpus(setup, program):
  for compiled in tpu.compile_all(setup, program):
    assert compiled.flops or program == 'handover'
    assert 0 < compiled.total < setup.device.memory
    if program == 'train':
      # Attention forward, and its two gradients; nothing is made again.
      assert compiled.kernels == 3 * MODEL.layers
      assert compiled.collectives['all-gather']
    assert tpu.report(compiled, setup.device).startswith(compiled.name)
