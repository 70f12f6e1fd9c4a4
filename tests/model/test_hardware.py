"""Devices: what they are, and what runs where a kernel's back end is gone."""

import dataclasses
import subprocess
import sys

import pytest

from rest.model import hardware
from rest.model.attention import kernel_for
from tests.model.packed import make_config

CODE = """
import sys
import rest.main
kernels = {'triton', 'jax_triton', 'jax.experimental.pallas'}
assert not kernels & set(sys.modules)
%s
from rest.model.attention import kernel_for
from rest.model.hardware import runs_kernels
from bench.shapes import SHAPES
for _ in range(2):
  assert not runs_kernels('gpu', 'bfloat16', 128)
  assert kernel_for(SHAPES['1.5b'], 2048, 'gpu', True) is None
"""


@pytest.mark.parametrize(
  'broken',
  [
    'sys.modules["jax_triton"] = None  # As if it were not installed.',
    'import jax; jax.__version_info__ = (0, 12, 0)\n'
    'sys.modules["jax_triton"] = jax  # As if it were.',
  ],
)
def test_a_missing_back_end_costs_speed_never_the_start(broken):
  """No kernel is imported before it is chosen; the log says once if none is."""
  done = subprocess.run(
    [sys.executable, '-W', 'error', '-c', CODE % broken],
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  assert done.stderr.count('Plain attention runs, not our kernels') == 1


@pytest.mark.parametrize(
  ('fields', 'length', 'platform', 'runs'),
  [
    ({}, 2048, 'gpu', 'flash'),
    ({'dtype': 'float16'}, 192, 'gpu', 'flash'),
    ({}, 2048, 'cpu', None),
    ({}, 2040, 'gpu', None),
    ({'dtype': 'float32'}, 2048, 'gpu', None),
    ({'head_width': 96}, 2048, 'gpu', None),
    ({'head_width': 8}, 2048, 'gpu', None),
    ({}, 2048, 'tpu', 'splash'),
    ({}, 2112, 'tpu', None),
  ],
)
def test_kernels_run_where_they_can(
  monkeypatch, fields, length, platform, runs
):
  monkeypatch.setattr(hardware, '_has_triton', lambda: True)
  config = dataclasses.replace(make_config(dtype='bfloat16'), **fields)
  assert kernel_for(config, length, platform, shares=False) == runs
  shared = kernel_for(config, length, platform, shares=True)
  assert shared == (None if runs == 'splash' else runs)
