"""How the kernels are cut into blocks, and which program has which block."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu


class Cut(NamedTuple):
  """How a kernel is cut.

  Attributes:
    queries: In a block; a power of two, 16 or more.
    keys: In a block, likewise.
    warps: That work on it.
    stages: Blocks that are loaded while one is worked on.
  """

  queries: int
  keys: int
  warps: int
  stages: int


class Blocks(NamedTuple):
  """How the three kernels are cut.

  Attributes:
    forward: A program has a block of queries, and meets blocks of keys.
    dq: Gradient of queries, likewise.
    dkv: Gradients of keys and values: a program has a block of keys.
  """

  forward: Cut = Cut(queries=128, keys=64, warps=8, stages=3)
  dq: Cut = Cut(queries=128, keys=64, warps=8, stages=2)
  dkv: Cut = Cut(queries=64, keys=128, warps=8, stages=2)


BLOCKS = Blocks()
# Half of the queries and keys where each is twice as wide.
WIDE = Blocks(
  *(
    cut._replace(queries=cut.queries // 2, keys=cut.keys // 2) for cut in BLOCKS
  )
)


class Static(NamedTuple):
  """What the kernels are compiled for.

  Attributes:
    scale: Multiplies queries.
    cap: Soft-cap of the logits; 0 is off.
    window: How far back along its path a query sees, itself included; 0 is
      everything.
    blocks: How they are cut.
    interpret: Runs without a GPU, for tests.
  """

  scale: float
  cap: float
  window: int
  blocks: Blocks
  interpret: bool


def sizes(cut: Cut, length: int) -> tuple[int, int]:
  """Returns queries and keys of a block: powers of two that divide a row."""
  most = length & -length
  return min(cut.queries, most), min(cut.keys, most)


def block_spec(
  shape: tuple[int | None, ...],
  place: Callable[[int, int, int], tuple[int, ...]],
) -> pl.BlockSpec:
  """Returns which block a program has.

  Args:
    shape: Of the block; an axis of None has one entry, and is dropped.
    place: (block i, head j, row n) -> the block's index on each axis.
  """
  return pl.BlockSpec(shape, place)


def query_specs(
  shape: tuple[int, ...], queries: int
) -> tuple[pl.BlockSpec, pl.BlockSpec, pl.BlockSpec]:
  """Returns specs of a block of queries, a number for each, and all keys."""
  _, t, _, g, h = shape
  block = block_spec(
    (None, queries, None, None, h), lambda i, j, n: (n, i, j // g, j % g, 0)
  )
  vector = block_spec(
    (None, None, None, queries), lambda i, j, n: (n, j // g, j % g, i)
  )
  whole = block_spec((None, t, None, h), lambda i, j, n: (n, 0, j // g, 0))
  return block, vector, whole


def options(static: Static, cut: Cut) -> dict[str, Any]:
  params = plgpu.CompilerParams(num_warps=cut.warps, num_stages=cut.stages)
  return {'compiler_params': params, 'interpret': static.interpret}
