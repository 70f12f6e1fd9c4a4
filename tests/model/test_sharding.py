"""Where arrays live follows from their names."""

import math

import jax
import pytest
from jax.sharding import PartitionSpec

from rest.model import sharding
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
  whole, here = sharding.plan_meshes(MeshConfig(2, 2, 2), 8, 4)
  assert (whole.axis_sizes, here.axis_sizes) == ((2, 2, 2), (2, 1, 2))
  mesh = sharding.make_mesh(MeshConfig(2, 2, 2), jax.devices()[:8])
  assert sharding.local_mesh(mesh).devices.shape == (4, 1, 2)
  assert math.prod(mesh.devices.shape) == 8
