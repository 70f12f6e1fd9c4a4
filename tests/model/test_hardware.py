"""Devices: what they are, and what runs where a kernel's back end is gone."""

import subprocess
import sys

CODE = """
import sys
import rest.main
assert 'jax.experimental.pallas' not in sys.modules
# As if JAX had dropped it.
sys.modules['jax.experimental.pallas.triton'] = None
from rest.model.attention import kernel_for
from rest.model.hardware import runs_kernels
from bench.shapes import SHAPES
for _ in range(2):
  assert not runs_kernels('gpu', 'bfloat16', 128)
  assert kernel_for(SHAPES['1.5b'], 2048, 'gpu', True) is None
"""


def test_a_missing_back_end_costs_speed_never_the_start():
  """Nothing of Pallas is imported before it is chosen; the log says it once."""
  done = subprocess.run(
    [sys.executable, '-W', 'error', '-c', CODE],
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  assert done.stderr.count('Plain attention runs, not our kernels') == 1
