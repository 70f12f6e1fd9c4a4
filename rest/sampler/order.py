"""What is asked of the sampler, and how far each completion has come."""

from dataclasses import dataclass, field


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


@dataclass(slots=True)
class Draft:
  """A completion that is being drawn.

  Attributes:
    place: Which of the ask's samples it is, by place.
    tokens: Drawn so far.
    logprobs: Theirs.
    row: Of the table, where it is drawn, once it has begun.
    entry: What that row calls it (`Rows`).
    is_done: Whether no more of it is wanted.
  """

  place: int
  tokens: list[int] = field(default_factory=list[int])
  logprobs: list[float] = field(default_factory=list[float])
  row: int = -1
  entry: int = -1
  is_done: bool = False


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
