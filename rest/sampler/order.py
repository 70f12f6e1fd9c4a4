"""What is asked of the sampler, and how far each completion has come."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Ask:
  """Samples wanted of one problem.

  Attributes:
    key: Names the problem for the random numbers: the same key gives the same
      samples, whatever else is asked.
    tokens: The question, which follows the prefix; at least one token.
    samples: Which samples to draw.
    limits: Longest completion of each sample; () is the sampler's limit for
      all. For loads with imposed lengths.
  """

  key: tuple[int, ...] | int
  tokens: tuple[int, ...]
  samples: tuple[int, ...]
  limits: tuple[int, ...] = ()


class Sampled(NamedTuple):
  """A completion as the device drew it.

  Attributes:
    ask: Index of the ask.
    sample: Which of its samples it is.
    tokens_T: The end token included; past a stop string, there may be more.
    logprobs_T: Their log-probabilities, float32.
  """

  ask: int
  sample: int
  tokens_T: NDArray[np.int32]
  logprobs_T: NDArray[np.float32]


@dataclass(slots=True)
class Draft:
  """A completion that is being drawn.

  Attributes:
    place: Which of the ask's samples it is, by place.
    pieces: Tokens and their log-probabilities, a pair for each call.
    length: Tokens drawn so far.
    row: Of the table, where it is drawn, once it has begun.
    entry: What that row calls it (`Rows`).
    is_done: Whether no more of it is wanted.
  """

  place: int
  pieces: list[tuple[NDArray[np.int32], NDArray[np.float32]]] = field(
    default_factory=list[tuple[NDArray[np.int32], NDArray[np.float32]]]
  )
  length: int = 0
  row: int = -1
  entry: int = -1
  is_done: bool = False

  def add(
    self, tokens_T: NDArray[np.int32], logprobs_T: NDArray[np.float32]
  ) -> None:
    """Takes what a call drew."""
    self.pieces.append((tokens_T, logprobs_T))
    self.length += len(tokens_T)

  def tail(self, tokens: int) -> list[int]:
    """Returns the last tokens drawn, so many or more."""
    found: list[int] = []
    for piece, _ in reversed(self.pieces):
      if len(found) >= tokens:
        break
      found = piece.tolist() + found
    return found


@dataclass(slots=True)
class Order:
  """Some samples of an ask, as they go into a buffer.

  Attributes:
    index: Of the ask.
    ask: What is asked.
    drafts: Of its samples.
    left: Drafts not done.
    waiting: Drafts that no row has begun, as far as the host knows.
  """

  index: int
  ask: Ask
  drafts: list[Draft]
  left: int
  waiting: int

  @property
  def begun(self) -> int:
    """Drafts that are being drawn."""
    return self.left - self.waiting


Owners = list[list[Order | None]]
