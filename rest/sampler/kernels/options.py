"""How the kernels are cut: queries into tiles, keys into blocks and parts."""

from typing import Any, NamedTuple

from jax.experimental import pallas as pl

_LEAST = 16  # Fewest queries that a matrix instruction takes.


class Blocks(NamedTuple):
  """Sizes, chosen by measurement on an H200.

  `queries` are those of one program, `keys` those it reads at once. The prefix
  is cut into parts until there are `prefix_programs` programs.
  """

  prefix_queries: int = 64
  prefix_keys: int = 64
  prefix_warps: int = 4
  prefix_stages: int = 3
  prefix_programs: int = 256
  question_queries: int = 64
  question_keys: int = 64
  question_warps: int = 4
  question_stages: int = 2
  suffix_keys: int = 32
  suffix_warps: int = 2
  suffix_stages: int = 3


class Options(NamedTuple):
  """What the three kernels are compiled for, beside the shapes.

  Attributes:
    window: How far back attention reaches; 0 is everything.
    cap: Soft-cap of the logits; 0 is off.
    blocks: How the kernels are cut.
    interpret: Runs without a GPU, for tests.
  """

  window: int
  cap: float
  blocks: Blocks = Blocks()
  interpret: bool = False


def tile_for(queries: int) -> int:
  """Returns the least tile that holds so many queries: 6 -> 16, 40 -> 64."""
  return max(_LEAST, pl.next_power_of_2(queries))


def block_of(keys: int, most: int) -> int:
  """Returns a power of two that divides the keys: of 96 and 64, it is 32."""
  return min(most, keys & -keys)


def block(grid: str, axes: str, *shape: int | None) -> pl.BlockSpec:
  """Returns which block of an array a program has.

  Example: of out_AKMH with the grid MKA, 'AKM.' gives the program (2, 0, 1) the
  block at (1, 0, 2, 0).

  Args:
    grid: A letter for each axis of the grid.
    axes: For each axis of the array, whose place its block's is; '.' is 0.
    *shape: Of the block; None takes one place, and leaves the axis out.
  """

  def place(*program: Any) -> tuple[Any, ...]:
    at = dict(zip(grid, program, strict=True))
    return tuple(at.get(axis, 0) for axis in axes)

  return pl.BlockSpec(shape, place)
