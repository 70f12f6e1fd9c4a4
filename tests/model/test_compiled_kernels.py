"""Kernels compiled for GPUs that are not here, with the blocks they run in."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

pytest.importorskip('triton', reason='Triton has no wheels for this machine.')

PROGRAM = pathlib.Path(__file__).parents[1] / 'compile_kernels.py'


@pytest.mark.parametrize(('width', 'spilt'), [(128, 64), (256, 256)])
@pytest.mark.parametrize(
  ('capability', 'shared'), [(90, 227 * 1024), (80, 163 * 1024)]
)
def test_every_kernel_compiles_and_fits(
  tmp_path, capability, shared, width, spilt
):
  """Into the memory that its warps share, with few bytes of a thread spilt."""
  environment = {
    key: value for key, value in os.environ.items() if key != 'TRITON_INTERPRET'
  }
  done = subprocess.run(
    [
      *(sys.executable, '-W', 'error::DeprecationWarning', PROGRAM),
      *(str(capability), str(width)),
    ],
    env={
      **environment,
      'JAX_PLATFORMS': 'cpu',
      'TRITON_CACHE_DIR': str(tmp_path),
    },
    cwd=PROGRAM.parents[1],
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  kernels = [json.loads(line) for line in done.stdout.splitlines()]
  assert [kernel['name'] for kernel in kernels] == [
    *('flash_forward', 'flash_dq', 'flash_dkv'),
    *('question_attention', 'prefix_attention'),
    *('stretch_attention', 'suffix_attention'),
  ]
  for kernel in kernels:
    assert kernel['shared'] <= shared and kernel['stack'] <= spilt, kernel
