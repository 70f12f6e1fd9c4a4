"""Tests see eight CPU devices, and no silent rank promotion.

Most of their time would go to optimizing, on the CPU, programs that run a few
times: it is left out, unless XLA_FLAGS is set. Processes that a test starts
compile as users do.
"""

import importlib
import os
import sys

import jax
import pytest

jax.config.update('jax_num_cpu_devices', 8)
jax.config.update('jax_numpy_rank_promotion', 'raise')

if 'XLA_FLAGS' not in os.environ:
  os.environ['XLA_FLAGS'] = '--xla_backend_optimization_level=0'
  jax.devices()  # Reads the flags.
  os.environ['REST_TEST_FLAGS'] = os.environ.pop('XLA_FLAGS')

if jax.devices()[0].platform == 'cpu':
  os.environ.setdefault('TRITON_INTERPRET', '1')  # Read with the kernels.


@pytest.fixture
def interpreted(monkeypatch):
  """On CPUs, kernels are interpreted."""
  if jax.devices()[0].platform == 'cpu':
    pytest.importorskip('torch')
    module = importlib.import_module('tests.interpreted')
    monkeypatch.setitem(sys.modules, 'jax_triton', module)


@pytest.fixture(autouse=True, scope='module')
def forgets_programs():
  """A program is a dozen memory maps, of which Linux gives a process 65,530.

  Thousands of tests in one process had more: it was killed by SIGSEGV.
  """
  yield
  jax.clear_caches()
