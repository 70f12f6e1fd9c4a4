"""How the kernels are cut into blocks, and what they are compiled for."""

import math
from dataclasses import dataclass
from typing import NamedTuple


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

  forward: Cut = Cut(queries=64, keys=64, warps=4, stages=2)
  dq: Cut = Cut(queries=64, keys=64, warps=4, stages=2)
  dkv: Cut = Cut(queries=64, keys=128, warps=8, stages=2)


BLOCKS = Blocks()  # The quickest on an H200 for heads of 128.
# For wider ones, not measured: of heads of 256 little is spilt, and forward and
# dq have the 64 queries that products of Hopper want.
WIDE = Blocks(
  forward=Cut(queries=64, keys=32, warps=8, stages=3),
  dq=Cut(queries=64, keys=32, warps=8, stages=2),
  dkv=Cut(queries=32, keys=64, warps=8, stages=2),
)


class Static(NamedTuple):
  """What the kernels are compiled for.

  Attributes:
    scale: Multiplies queries.
    cap: Soft-cap of the logits; 0 is off.
    window: How far back along its path a query sees, itself included; 0 is
      everything.
    blocks: How they are cut.
  """

  scale: float
  cap: float
  window: int
  blocks: Blocks

  @property
  def unit(self) -> float:
    """A score of 1 as a logit in units of log 2 (see `kernels._scores`)."""
    return (self.cap or self.scale) * math.log2(math.e)


@dataclass(frozen=True)
class Fixed:
  """What one kernel is compiled for: axes of q_BTKGH, and a block of them."""

  static: Static
  t: int
  k: int
  g: int
  h: int
  queries: int
  keys: int


def sizes(cut: Cut, length: int) -> tuple[int, int]:
  """Returns queries and keys of a block: powers of two that divide a row."""
  most = length & -length
  return min(cut.queries, most), min(cut.keys, most)
