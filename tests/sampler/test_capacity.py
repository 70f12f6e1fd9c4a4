"""The size of the table: what fits, and what it may shrink to."""

import dataclasses

import jax
import pytest

from rest.model.hardware import known
from rest.model.sharding import MeshConfig, make_mesh
from rest.model.transformer import ModelConfig
from rest.sampler import SamplerConfig
from rest.sampler.capacity import size_tables, smallest

CONFIG = ModelConfig(
  vocab=96, width=32, layers=1, heads=4, kv_heads=2, head_width=8, ffn=48
)
SETTINGS = SamplerConfig(
  max_tokens=24, max_prompt_tokens=48, rows=16, rows_per_slot=4
)


def test_tables_shrink_by_rows_of_a_slot_and_then_by_slots():
  mesh = make_mesh(MeshConfig(), jax.devices()[:1])
  settings = dataclasses.replace(SETTINGS, rows=32, rows_per_slot=8, min_rows=2)
  (capacity,) = size_tables(settings, CONFIG, mesh, prefix=10, samples=8)
  found = []
  for left in range(32, 0, -1):
    shape = smallest(
      capacity, mesh, lambda shape, left=left: shape.size >= left
    )
    found.append((shape.slots, shape.rows))
  assert list(dict.fromkeys(found)) == [
    *((4, rows) for rows in (8, 7, 6, 5, 4, 3, 2, 1)),
    (2, 1),
  ]


def test_too_little_memory_names_the_fields_to_lower():
  config = dataclasses.replace(CONFIG, width=4096, head_width=512, layers=64)
  mesh = make_mesh(MeshConfig(), jax.devices()[:1])
  settings = dataclasses.replace(SETTINGS, max_tokens=1 << 20, rows=512)
  with pytest.raises(ValueError, match=r'GiB.*sampling\.rows.*max_tokens'):
    size_tables(settings, config, mesh, prefix=10, samples=8)


def test_memory_is_that_of_three_levels():
  # The example of `_weigh`.
  config = dataclasses.replace(
    CONFIG, layers=28, head_width=128, dtype='bfloat16'
  )
  settings = SamplerConfig(max_tokens=512, max_prompt_tokens=833)
  mesh = make_mesh(MeshConfig(), jax.devices()[:1])
  device = known('NVIDIA H200', 'gpu', 141 * 10**9)
  (found,) = size_tables(settings, config, mesh, 640, 30, device)
  assert (found.shape.rows, found.shape.slots) == (16, 128)
  assert found.prefix_bytes == 17.5 * 2**20
  assert found.question_bytes == 128 * 2 * 192 * 28 * 2**10
  assert found.suffix_bytes == 28 * 2**30
  less = known('NVIDIA H200', 'gpu', 30 * 10**9)
  (found,) = size_tables(settings, config, mesh, 640, 30, less)
  assert found.shape.slots == 96


@pytest.mark.parametrize(
  'max_tokens, rows, expected',
  [
    (1024, 0, [(0, 1024)]),
    (2048, 0, [(0, 2048)]),
    (8192, 0, [(0, 2048), (2048, 8192)]),
    (32768, 0, [(0, 2048), (2048, 8192), (8192, 32768)]),
    (8192, 64, [(0, 8192)]),  # As many as were asked for.
  ],
)
def test_long_completions_are_begun_in_a_table_for_short_ones(
  max_tokens, rows, expected
):
  # The example of `size_tables`.
  config = dataclasses.replace(
    CONFIG, layers=28, head_width=128, dtype='bfloat16'
  )
  settings = SamplerConfig(
    max_tokens=max_tokens, max_prompt_tokens=833, rows=rows
  )
  mesh = make_mesh(MeshConfig(), jax.devices()[:1])
  device = known('NVIDIA H200', 'gpu', 113 * 10**9)
  tables = size_tables(settings, config, mesh, 640, 30, device)
  assert [(table.begun, table.limit) for table in tables] == expected
  for table in tables:
    assert table.fits
    assert table.shape.suffix >= table.limit - table.begun
    assert table.shape.question >= 192 + table.begun
    assert rows or table.begun or table.shape.size >= 1024
