"""What is asked of the sampler, and what was drawn of each completion."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_ALL = 1 << 62


class Begun(NamedTuple):
  """What a table for shorter completions drew of one.

  Attributes:
    tokens_T: It goes on behind them.
    logprobs_T: Their log-probabilities, float32.
  """

  tokens_T: NDArray[np.int32]
  logprobs_T: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Ask:
  """Samples wanted of one problem.

  Attributes:
    key: Names the problem for the random numbers: the same key gives the same
      samples, whatever else is asked.
    tokens: The question, which follows the prefix, at least one token; behind
      it, what is begun.
    samples: Which samples to draw.
    limits: Longest completion of each sample; () is the sampler's limit for
      all. For loads with imposed lengths.
    begun: What there is of its one sample; None where all are to be begun.
  """

  key: tuple[int, ...] | int
  tokens: tuple[int, ...]
  samples: tuple[int, ...]
  limits: tuple[int, ...] = ()
  begun: Begun | None = None

  @property
  def drawn(self) -> int:
    """How many tokens of its sample there are."""
    return 0 if self.begun is None else len(self.begun.tokens_T)


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


def rest_of(ask: Ask, sampled: Sampled, limit: int) -> Ask:
  """Returns an ask for what is left of a sample, up to a limit."""
  begun = Begun(sampled.tokens_T, sampled.logprobs_T)
  tokens = (*ask.tokens, *begun.tokens_T.tolist())
  return Ask(ask.key, tokens, (sampled.sample,), (limit,), begun)


@dataclass(slots=True)
class Draft:
  """A completion that is being drawn.

  Attributes:
    place: Which of the ask's samples it is, by place.
    row: Of the table, where it is drawn, once it has begun.
    entry: What that row calls it (`Rows`).
    begun: See `Ask`.
    is_done: Whether no more of it is wanted.
    spans: Where its tokens are, in their order; the last is the row's.
  """

  place: int
  row: int = -1
  entry: int = -1
  begun: Begun | None = None
  is_done: bool = False
  spans: 'list[Span]' = field(default_factory=lambda: list[Span]())

  def drawn(
    self, track: 'Track', stop: int, most: int = _ALL
  ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Returns its tokens up to a step, and their log-probabilities.

    Args:
      track: Of the step: it may have been moved to another table since.
      stop: The step behind the last.
      most: How many of the last are wanted; there may be fewer.
    """
    pieces: list[tuple[NDArray[np.int32], NDArray[np.float32]]] = []
    count = next(i for i, s in enumerate(self.spans, 1) if s.track is track)
    for span in reversed(self.spans[:count]):
      end = stop if span.track is track else span.track.steps
      start = max(span.start, end - most)
      pieces.append(span.track.read(span.row, start, end))
      most -= end - start
      if not most:
        break
    if most and self.begun:
      pieces.append(
        (self.begun.tokens_T[-most:], self.begun.logprobs_T[-most:])
      )
    tokens, logprobs = zip(*reversed(pieces), strict=True)
    return np.concatenate(tokens), np.concatenate(logprobs)


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


class Track:
  """Who is drawn in the rows of a table, and what they drew.

  Steps are counted from the table's first. Most rows of most calls go on with
  what they drew before: arrays say which ones do not, and what a row drew is
  looked at where it ends.

  Invariant: of a draft that is not done, all tokens are there: a row keeps as
  many as a completion may have. Example: where calls have 4 steps, a draft that
  began in step 2 of the second one, and ended in step 1 of the third, was drawn
  in steps 6 to 9; its tokens are [6, 10) of its row.

  Attributes:
    steps: How many were filed.
    drafts: By row; None where nothing is known to be drawn.
    entry_B: What the rows call them; -1 for none.
    begun_B: The step in which they would have begun, had all of their tokens
      been drawn here.
  """

  def __init__(self, rows: int, limit: int):
    """Starts with idle rows.

    Args:
      rows: Of the table.
      limit: Longest completion.
    """
    self.steps = 0
    self.drafts: list[Draft | None] = [None] * rows
    self.entry_B = np.full(rows, -1, np.int32)
    self.begun_B = np.zeros(rows, np.int64)
    self._limit = limit
    self._token_BS = np.zeros((rows, 0), np.int32)  # A ring of S steps.
    self._logprob_BS = np.zeros((rows, 0), np.float32)

  @property
  def longest(self) -> int:
    """Tokens of the longest draft."""
    lengths = (self.steps - self.begun_B)[self.entry_B >= 0]
    return int(lengths.max(initial=0))

  def file(
    self, token_TB: NDArray[np.int32], logprob_TB: NDArray[np.float32]
  ) -> None:
    """Takes what a call drew; all calls have as many steps."""
    steps = len(token_TB)
    if not self.steps:
      ring = len(self.drafts), (-(-self._limit // steps) + 1) * steps
      self._token_BS = np.zeros(ring, np.int32)
      self._logprob_BS = np.zeros(ring, np.float32)
    at = self.steps % self._token_BS.shape[1]
    self._token_BS[:, at : at + steps] = token_TB.T
    self._logprob_BS[:, at : at + steps] = logprob_TB.T
    self.steps += steps

  def read(
    self, row: int, start: int, stop: int
  ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Returns what a row drew in some steps, as copies."""
    at = np.arange(start, stop) % max(1, self._token_BS.shape[1])
    return self._token_BS[row, at], self._logprob_BS[row, at]

  def begin(self, draft: Draft, start: int, length: int = 0) -> None:
    """Notes that a row begins to draw for a draft, which knows its row.

    Args:
      draft: That is drawn from now on.
      start: Step of its first token here.
      length: Tokens of it that were drawn elsewhere.
    """
    row = draft.row
    self.drafts[row], self.entry_B[row] = draft, draft.entry
    self.begun_B[row] = start - length
    draft.spans.append(Span(self, row, start))

  def forget(self, row: int) -> None:
    """Notes that nothing more is wanted of what a row draws."""
    self.drafts[row], self.entry_B[row] = None, -1


class Span(NamedTuple):
  """A run of a draft's tokens, in a row of one table.

  Attributes:
    track: Of the table.
    row: Of the table.
    start: Step of the first token.
  """

  track: Track
  row: int
  start: int


class Held(NamedTuple):
  """Who held buffers and rows when a call was made.

  Attributes:
    owners: Of the buffers.
    track: Of the rows.
  """

  owners: Owners
  track: Track
