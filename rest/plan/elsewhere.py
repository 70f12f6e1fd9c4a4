"""Devices that are not there, as their makers' compilers know them.

The packages libtpu and jax-cuda13-plugin compile, on any CPU, for devices that
they are told of.
"""

import importlib.util
import math
import os
from typing import Any, NamedTuple

from rest.model.hardware import Device


class _Gpu(NamedTuple):
  """What XLA asks about a GPU, beside what all of them have in common.

  From openxla/xla, xla/backends/gpu/target_config/specs (a100_sxm_80, h100_sxm,
  h200), where it was read from the devices.
  """

  name: str
  capability: int  # The major number; the minor is 0.
  cores: int
  units: int  # For float32, of a core.
  hertz: float
  shared: int  # Bytes that the programs of a core share; a KiB is the driver's.
  cache: int  # Bytes of L2.


_GPUS = {
  'a100': _Gpu(
    *('NVIDIA A100-SXM4-80GB', 8, 108, 64, 1.41e9, 164 * 2**10, 40 * 2**20)
  ),
  'h100': _Gpu(
    *('NVIDIA H100 80GB HBM3', 9, 132, 128, 1.98e9, 228 * 2**10, 50 * 2**20)
  ),
  'h200': _Gpu(*('NVIDIA H200', 9, 132, 128, 1.98e9, 228 * 2**10, 50 * 2**20)),
}


def topology(plan_for: str, device: Device, count: int) -> str:
  """Returns the name of a slice as `devices` has it: of v5e-16, 'v5e:4x4'.

  TPUs are named as libtpu does, of GPUs 'h100:2x8' are two hosts of eight.

  Raises:
    ValueError: There is no such slice.
  """
  if device.platform == 'gpu':
    hosts = max(1, count // device.a_host)
    return f'{device.kind}:{hosts}x{count // hosts}'
  sizes = [2, 2, 1] if device.kind == 'v5p' else [2, 2]
  while math.prod(sizes) < count:  # The last of the shortest sides.
    at = max(i for i, size in enumerate(sizes) if size == min(sizes))
    sizes[at] *= 2
  if math.prod(sizes) != count:
    raise ValueError(
      f'--compile needs a slice of 4, 8, 16 ... chips; --plan_for={plan_for} '
      f'has {count}.'
    )
  return f'{device.kind}:{"x".join(map(str, sizes))}'


def devices(name: str, device: Device) -> list[Any]:
  """Returns all devices of a topology, such as 'v5e:4x4' or 'h100:2x8'.

  Args:
    name: Of the topology.
    device: Of what kind they are.

  Raises:
    ValueError: Their compiler is not installed.
  """
  from jax.experimental import topologies

  if device.platform == 'tpu':
    if importlib.util.find_spec('libtpu') is None:
      raise ValueError(
        "TPUs' compiler, the package libtpu, is not installed: "
        "pip install -e '.[tpu]'."
      )
    os.environ.setdefault('TPU_WORKER_HOSTNAMES', 'localhost')
    # There is no chip that two processes could want.
    os.environ.setdefault('ALLOW_MULTIPLE_LIBTPU_LOAD', '1')
    return topologies.get_topology_desc(
      platform='tpu', topology_name=name
    ).devices
  # There need be no driver, nor the libraries that only a GPU needs.
  os.environ.setdefault('JAX_SKIP_CUDA_CONSTRAINTS_CHECK', '1')
  try:
    return topologies.get_topology_desc(
      platform='cuda',
      topology_name=name,
      target_config=_target(device),
      topology=f'1x{name.partition(":")[2]}',  # Slices, hosts, devices.
    ).devices
  except (NotImplementedError, RuntimeError) as error:
    raise ValueError(
      "NVIDIA GPUs' compiler, the package jax-cuda13-plugin, is not installed: "
      f"pip install -e '.[gpu-compiler]' ({error})."
    ) from error


def _target(device: Device) -> str:
  """Returns a GPU as XLA is told of it, a GpuTargetConfigProto as text."""
  gpu = _GPUS[device.kind]
  return f"""
    platform_name: "CUDA"
    device_description_str: "{gpu.name}"
    dnn_version_info {{ major: 9 minor: 10 }}
    gpu_device_info {{
      cuda_compute_capability {{ major: {gpu.capability} }}
      core_count: {gpu.cores}
      fpus_per_core: {gpu.units}
      clock_rate_ghz: {gpu.hertz / 1e9}
      shared_memory_per_core: {gpu.shared}
      shared_memory_per_block: {48 * 2**10}
      shared_memory_per_block_optin: {gpu.shared - 2**10}
      l2_cache_size: {gpu.cache}
      device_memory_size: {device.memory}
      memory_bandwidth: {int(device.bandwidth)}
      threads_per_warp: 32
      threads_per_block_limit: 1024
      threads_per_core_limit: 2048
      registers_per_core_limit: 65536
      registers_per_block_limit: 65536
      block_dim_limit_x: 2147483647
      block_dim_limit_y: 65535
      block_dim_limit_z: 65535
      thread_dim_limit_x: 1024
      thread_dim_limit_y: 1024
      thread_dim_limit_z: 64
    }}
  """
