"""Where each array lives on the mesh: the name is the shape is the sharding.

A parameter's name ends in one letter an axis (`gate_up_DCF`), and two small
tables say which mesh axis shards each letter. Optimizer state follows by the
leaf's name. The letters stand in `rest.model`.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import (
  AbstractMesh,
  AxisType,
  Mesh,
  NamedSharding,
  PartitionSpec,
)

from rest.config import MeshConfig
from rest.model.hardware import Device

AXES = ('data', 'fsdp', 'tensor')

# How weights are split: `fsdp` over the width, `tensor` over heads and width of
# the feed-forward layer. Letters that are not here are never split.
PARAMETERS = {'D': 'fsdp', 'K': 'tensor', 'F': 'tensor', 'V': 'tensor'}

# How weights are split where each row of devices has them whole: in sampling.
COPIES = {letter: axis for letter, axis in PARAMETERS.items() if axis != 'fsdp'}

# How activations are split: rows over all data-parallel devices.
ACTIVATIONS = {'B': ('data', 'fsdp'), **dict.fromkeys('KFV', 'tensor')}


def make_mesh(config: MeshConfig, devices: list[Any] | None = None) -> Mesh:
  """Returns the mesh (data, fsdp, tensor) over all devices of all processes.

  Raises:
    ValueError: The axes do not multiply to the number of devices.
  """
  devices = jax.devices() if devices is None else devices
  sizes = _axis_sizes(config, len(devices))
  if jax.process_count() > 1 or devices != jax.devices():
    grid = np.asarray(devices).reshape(sizes)
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * 3)
  return jax.make_mesh(
    tuple(sizes), AXES, axis_types=(AxisType.Auto,) * 3, devices=devices
  )


def plan_meshes(
  config: MeshConfig, devices: int, device: Device
) -> tuple[AbstractMesh, AbstractMesh]:
  """Returns a mesh of devices that need not exist, and what samples together.

  Args:
    config: Devices by axis.
    devices: Of all processes, each of which has a host's.
    device: Of what kind they are.

  Raises:
    ValueError: As `make_mesh` and `sampling_mesh` do.
  """
  sizes = _axis_sizes(config, devices)
  here = min(devices, device.a_host)
  if _must_keep_step(device, devices, here, sizes[2]):
    here = devices
  copies, odd = divmod(here, sizes[2])
  if odd:
    raise ValueError(_crosses(sizes[2], here))
  return AbstractMesh(tuple(sizes), AXES), AbstractMesh(
    (copies, 1, sizes[2]), AXES
  )


def sampling_mesh(mesh: Mesh, device: Device) -> Mesh:
  """Returns the devices that sample together, as (data, 1, tensor).

  They are this process's, or all, in step, where the compiler wants it so.

  Invariant: what shares a matrix product, a copy, is of one process, unless all
  keep step. A mesh (2, 2, 2) over two processes of 4 devices is four copies;
  each process has two of them, a mesh (2, 1, 2), or both have a mesh (4, 1, 2).

  Args:
    mesh: Of all devices of all processes.
    device: Of what kind they are.

  Raises:
    ValueError: `tensor` reaches over processes that sample by themselves.
  """
  tensor = mesh.shape['tensor']
  copies = mesh.devices.reshape(-1, tensor)
  mine = np.array([[_is_here(d) for d in copy] for copy in copies])
  here = int(mine.sum())
  if not _must_keep_step(device, mesh.size, here, tensor):
    if (mine.any(axis=1) != mine.all(axis=1)).any():
      raise ValueError(_crosses(tensor, here))
    copies = copies[mine[:, 0]]
  return Mesh(copies[:, None], AXES, axis_types=(AxisType.Auto,) * 3)


def in_step(mesh: Mesh) -> bool:
  """Whether devices of other processes are in a mesh.

  Then all processes launch the same programs, in the same order.
  """
  return not all(map(_is_here, mesh.devices.flat))


def spec(
  name: str, ndim: int, table: dict[str, Any] | None = None
) -> PartitionSpec:
  """Returns the partition of an array called `name`, such as 'gate_up_DCF'.

  A stack of layers has one axis more than its name has letters, in front; it
  is never split: ('gate_up_DCF', 4) gives (None, 'fsdp', None, 'tensor').
  """
  table = PARAMETERS if table is None else table
  letters = name.rsplit('_', 1)[-1]
  if not letters.isupper():
    letters = ''
  axes = [table.get(letter) for letter in letters]
  if ndim < len(axes):  # Optimizers keep reduced or scalar state for a leaf.
    return PartitionSpec()
  return PartitionSpec(*[None] * (ndim - len(axes)), *axes)


def shardings(
  tree: Any, mesh: Mesh, table: dict[str, Any] | None = None
) -> Any:
  """Returns the sharding of each leaf of a tree of named parameters.

  The name is the last attribute or key on a leaf's path that ends in axis
  letters; leaves without one (step counts, keys) are replicated.
  """

  def one(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
    return NamedSharding(mesh, spec(leaf_name(path), len(leaf.shape), table))

  return jax.tree_util.tree_map_with_path(one, tree)


def leaf_name(path: tuple[Any, ...]) -> str:
  """Returns the parameter name on a leaf's path, or '' if there is none."""
  for entry in reversed(path):
    name = str(getattr(entry, 'name', getattr(entry, 'key', '')))
    if '_' in name and name.rsplit('_', 1)[-1].isupper():
      return name
  return ''


def constrain(x: jax.Array, letters: str) -> jax.Array:
  """Pins an activation's sharding under `jax.set_mesh`; else returns it."""
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty:
    return x
  partition = PartitionSpec(*[ACTIVATIONS.get(letter) for letter in letters])
  return jax.lax.with_sharding_constraint(x, partition)


def on_mesh(
  run: Callable[..., Any], arguments: Sequence[str], results: Sequence[str]
) -> Callable[..., Any]:
  """Splits a function of named activations over the mesh, if there is one."""
  if jax.sharding.get_abstract_mesh().empty:
    return run

  def places(names: Sequence[str]) -> tuple[PartitionSpec, ...]:
    return tuple(
      spec(name, len(name.rsplit('_', 1)[-1]), ACTIVATIONS) for name in names
    )

  return jax.shard_map(
    run,
    in_specs=places(arguments),
    out_specs=places(results),
    check_vma=False,
  )


def platform() -> str:
  """Returns JAX's name for the devices that a program is traced for."""
  device = jax.sharding.get_abstract_mesh().abstract_device
  return device.platform if device else jax.devices()[0].platform


def _axis_sizes(config: MeshConfig, devices: int) -> list[int]:
  sizes = [config.data, config.fsdp, config.tensor]
  if -1 in sizes:
    rest = math.prod(n for n in sizes if n != -1)
    sizes[sizes.index(-1)] = max(1, devices // rest)
  if math.prod(sizes) != devices:
    raise ValueError(
      f'mesh data={config.data} fsdp={config.fsdp} tensor={config.tensor} '
      f'does not divide the {devices} devices there are: the product of '
      'mesh.data, mesh.fsdp and mesh.tensor must be their number.'
    )
  return sizes


def _must_keep_step(
  device: Device, devices: int, here: int, tensor: int
) -> bool:
  """Whether a process's devices cannot sample by themselves; one alone can.

  Args:
    device: Of what kind they are.
    devices: Of all processes.
    here: Of a process.
    tensor: That share a matrix product.
  """
  if here in (1, devices):
    return False
  is_whole = 0 < device.whole_above < devices
  return is_whole or (tensor > 2 and 0 < device.pairs_above < devices)


def _is_here(device: Any) -> bool:
  return device.process_index == jax.process_index()


def _crosses(tensor: int, devices: int) -> str:
  return (
    f'mesh.tensor={tensor} must divide the {devices} devices of each process.'
  )
