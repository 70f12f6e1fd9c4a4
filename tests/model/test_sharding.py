"""Where arrays live follows from their names."""

import dataclasses
import math

import jax
import pytest
from jax.sharding import PartitionSpec

from rest.model import hardware, sharding
from rest.model.sharding import MeshConfig


@pytest.mark.parametrize(
  ('name', 'ndim', 'expected'),
  [
    ('gate_up_DCF', 3, ('fsdp', None, 'tensor')),
    ('gate_up_DCF', 4, (None, 'fsdp', None, 'tensor')),
    ('gate_up_DCF', 1, ()),  # A sum that an optimizer keeps.
    ('count', 0, ()),
  ],
)
def test_names_say_how_arrays_are_split(name, ndim, expected):
  assert sharding.spec(name, ndim) == PartitionSpec(*expected)


def test_a_process_has_whole_copies():
  device, count = hardware.parse('v5p-16')
  whole, here = sharding.plan_meshes(MeshConfig(2, 2, 2), count, device)
  assert (whole.axis_sizes, here.axis_sizes) == ((2, 2, 2), (2, 1, 2))
  mesh = sharding.make_mesh(MeshConfig(2, 2, 2), jax.devices()[:8])
  together = sharding.sampling_mesh(mesh, hardware.cpu(8))
  assert together.devices.shape == (4, 1, 2)
  assert math.prod(mesh.devices.shape) == 8
  assert not sharding.in_step(together)


@pytest.mark.parametrize(
  ('slice_', 'tensor', 'together'),
  [
    *(('v5e-4', 4, 4), ('v5e-8', 4, 4), ('v5e-16', 2, 4), ('v5e-16', 4, 16)),
    *(('v5e-32', 1, 32), ('v5e-64', 2, 64), ('v5e-64', 8, 64)),
    *(('v6e-16', 2, 4), ('v6e-16', 4, 16), ('v6e-64', 1, 4)),
    *(('v5p-128', 4, 4), ('h200-16', 4, 8)),
  ],
)
def test_all_sample_in_step_where_a_host_cannot_by_itself(
  slice_, tensor, together
):
  device, count = hardware.parse(slice_)
  axes = MeshConfig(data=1, fsdp=-1, tensor=tensor)
  _, mesh = sharding.plan_meshes(axes, count, device)
  assert mesh.axis_sizes == (together // tensor, 1, tensor)
  # A process that has one device samples on it.
  device = dataclasses.replace(device, a_host=1)
  _, mesh = sharding.plan_meshes(MeshConfig(-1, 1, 1), count, device)
  assert mesh.size == 1
