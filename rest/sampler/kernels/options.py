"""How the kernels are cut: queries into tiles, keys into blocks and parts."""

import math
from dataclasses import dataclass
from typing import NamedTuple

_LEAST = 16  # Fewest queries that a matrix instruction takes.


class Blocks(NamedTuple):
  """Sizes, chosen by measurement on an H200.

  `queries` are those of one program, `keys` those it reads at once. The prefix
  is cut into parts until there are `prefix_programs` programs, and questions
  and suffixes into stretches until there are `programs`.
  """

  prefix_queries: int = 64
  prefix_keys: int = 32
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
  programs: int = 2048
  stretch: int = 512  # Keys, at least; finer was not tried.


class Options(NamedTuple):
  """What the kernels are compiled for, beside the shapes.

  Attributes:
    window: How far back attention reaches; 0 is everything.
    cap: Soft-cap of the logits; 0 is off.
    blocks: How the kernels are cut.
  """

  window: int
  cap: float
  blocks: Blocks = Blocks()

  @property
  def unit(self) -> float:
    """A score of 1 as a logit in units of log 2 (see `softmax.read`)."""
    return (self.cap or 1.0) * math.log2(math.e)


@dataclass(frozen=True)
class Fixed:
  """What one kernel is compiled for.

  Attributes:
    options: For all kernels.
    k: Key heads.
    g: Queries of a row that share one.
    h: Width of a head.
    s: Keys that there is room for.
    tile: Queries of a program.
    keys: That it reads at once.
    stretch: Keys of a part of a question, or of a suffix.
    asked: Keys of a part of the question, where they are merged.
    parts: Of the prefix, where they are merged.
  """

  options: Options
  k: int
  g: int
  h: int
  s: int
  tile: int
  keys: int
  stretch: int = 0
  asked: int = 0
  parts: int = 0


def tile_for(queries: int) -> int:
  """Returns the least tile that holds so many queries: 6 -> 16, 40 -> 64."""
  return max(_LEAST, 1 << (queries - 1).bit_length())


def block_of(keys: int, most: int) -> int:
  """Returns a power of two that divides the keys: of 96 and 64, it is 32."""
  return min(most, keys & -keys)


def stretch_of(keys: int, programs: int, block: int, blocks: Blocks) -> int:
  """Returns how many keys one program reads, whole blocks of them.

  A long sequence that is read by one program is waited for by all, most so
  where few rows are left. Example: 6,144 keys of 256 programs, in blocks of 32,
  are cut into 8 stretches of 768, so that there are 2,048 programs; 512 keys
  are one, however few there are.
  """
  parts = max(1, blocks.programs // programs)
  return max(blocks.stretch, -(-keys // (parts * block)) * block)
