"""What a device is, by its maker's data sheet: plans need no device at hand."""

import functools
import importlib
import os
from dataclasses import dataclass
from typing import Any, Literal

from absl import logging


@dataclass(frozen=True, slots=True)
class Device:
  """One device.

  Attributes:
    kind: Its name here, or what JAX calls it where the table has none.
    memory: Bytes that a program may fill.
    flops: Dense bfloat16 FLOP/s; 0 is unknown.
    bandwidth: Bytes/s of its memory; 0 is unknown.
    a_host: Devices of a host, and so of a process.
    platform: JAX's name for its family; 'cpu' is a share of the host itself.
    whole_above: Devices of a slice above which a program runs on one of them or
      on all; 0: never.
    pairs_above: Devices of a slice above which programs of one host's do not
      add up over more than two of them; 0: never.
  """

  kind: str
  memory: int
  flops: float = 0.0
  bandwidth: float = 0.0
  a_host: int = 1
  platform: Literal['cpu', 'gpu', 'tpu'] = 'cpu'
  whole_above: int = 0
  pairs_above: int = 0


@dataclass(frozen=True, slots=True)
class _Sheet:
  """A line of a data sheet; its GB are taken for GiB.

  (An H200 of 141 GB shows 140.4 GiB to its driver.)
  """

  names: tuple[str, ...]  # What JAX's device_kind may hold.
  gib: int
  teraflops: float  # Dense: NVIDIA prints twice as much, for sparse matrices.
  gigabytes: float  # A second.
  a_host: int
  platform: Literal['gpu', 'tpu']
  cores: int = 1  # In names of slices: a v5p-256 has 128 devices.
  whole_above: int = 0  # What TPUs' compiler refused: bench/NOTES.md.
  pairs_above: int = 0


# cloud.google.com/tpu/docs/v5e, v5p, v6e ("System architecture");
# nvidia.com/en-us/data-center/a100, h100, h200 ("Specifications", SXM).
_SHEETS = {
  'v5e': _Sheet(
    *(('TPU v5 lite', 'TPU v5e'), 16, 197, 819, 4, 'tpu'),
    whole_above=16,
    pairs_above=8,
  ),
  'v5p': _Sheet(('TPU v5p', 'TPU v5'), 95, 459, 2765, 4, 'tpu', cores=2),
  'v6e': _Sheet(
    *(('TPU v6 lite', 'TPU v6e'), 32, 918, 1640, 4, 'tpu'), pairs_above=8
  ),
  'a100': _Sheet(('A100',), 80, 312, 2039, 8, 'gpu'),
  'h100': _Sheet(('H100',), 80, 990, 3350, 8, 'gpu'),
  'h200': _Sheet(('H200',), 141, 990, 4800, 8, 'gpu'),
}
_TPU_SHARE = 0.97  # The runtime keeps the rest.


def parse(name: str) -> tuple[Device, int]:
  """Returns the device and the number of devices of 'v5e-64' or 'h100-8'.

  TPU slices go by Google's names: those of v5p count cores, two a device.

  Raises:
    ValueError: No such device, or no such number of them.
  """
  kind, _, count = name.partition('-')
  sheet = _SHEETS.get(kind)
  if sheet is None or not count.isdecimal() or not int(count):
    raise ValueError(
      '--plan_for must be a device and a number, such as v5e-64; devices are '
      f'{", ".join(_SHEETS)}; got {name!r}.'
    )
  devices, odd = divmod(int(count), sheet.cores)
  if odd or (devices > sheet.a_host and devices % sheet.a_host):
    raise ValueError(
      f'--plan_for={name}: {kind} comes in hosts of '
      f'{sheet.a_host * sheet.cores}.'
    )
  return _device(kind, sheet, _memory(sheet)), devices


def known(device_kind: str, platform: Any, memory: int) -> Device:
  """Returns a device that JAX found.

  Args:
    device_kind: JAX's name for it.
    platform: JAX's name for its family.
    memory: Bytes that JAX may fill there.
  """
  for kind, sheet in _SHEETS.items():
    if any(name in device_kind for name in sheet.names):
      return _device(kind, sheet, memory)
  return Device(device_kind, memory, platform=platform)


def runs_kernels(platform: str, dtype: str, width: int) -> bool:
  """Whether our Triton kernels run: NVIDIA, 16 bits, heads in whole tiles.

  Args:
    platform: JAX's name for the devices' family.
    dtype: That is computed in.
    width: Of a head.
  """
  return (
    platform == 'gpu'
    and dtype in ('bfloat16', 'float16')
    and width >= 16
    and width & (width - 1) == 0
    and _has_triton()
  )


def compiler_options(platform: str) -> dict[str, bool]:
  """Returns what XLA is told of the programs that sample and train.

  Of Triton's matrix products few are quicker here than the library's, and
  trying them takes up to half of the compilation (bench/NOTES.md).

  Args:
    platform: JAX's name for the devices' family.
  """
  return {'xla_gpu_enable_triton_gemm': False} if platform == 'gpu' else {}


def cpu(devices: int) -> Device:
  """Returns this host as one of so many devices that share its memory."""
  total = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
  return Device('cpu', total // devices)


@functools.cache
def _has_triton() -> bool:
  """Whether there is what the kernels stand on; says so once if not."""
  try:
    library = importlib.import_module('jax_triton.triton_lib')
  except ImportError as error:  # Of Triton, too.
    logging.warning('Plain attention runs, not our kernels: %s', error)
    return False
  partial_eval = importlib.import_module('jax.interpreters.partial_eval')
  partial_eval.dce_rules[library.triton_kernel_call_p] = _keep
  return True


def _keep(*args: Any) -> tuple[list[bool], Any]:
  """Says that a call of a kernel is needed, and all that it reads.

  As jax-triton 0.4.1 does, but JAX 0.12 asks with an argument more.
  """
  *_, equation = args
  return [True] * len(equation.invars), equation


def _device(kind: str, sheet: _Sheet, memory: int) -> Device:
  return Device(
    kind,
    memory,
    flops=sheet.teraflops * 1e12,
    bandwidth=sheet.gigabytes * 1e9,
    a_host=sheet.a_host,
    platform=sheet.platform,
    whole_above=sheet.whole_above,
    pairs_above=sheet.pairs_above,
  )


def _memory(sheet: _Sheet) -> int:
  """Returns what JAX would fill of it; of a GPU, what its variable says."""
  share = _TPU_SHARE
  if sheet.platform == 'gpu':
    share = float(os.environ.get('XLA_PYTHON_CLIENT_MEM_FRACTION', '0.75'))
  return int(sheet.gib * 2**30 * share)
