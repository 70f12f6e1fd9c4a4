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
  """A completion that is being drawn."""

  tokens: list[int] = field(default_factory=list)
  logprobs: list[float] = field(default_factory=list)
  row: int = 0  # Of the table, where it was last seen.
  is_done: bool = False


@dataclass(slots=True)
class Order:
  """Some samples of an ask, as they go into a buffer.

  Attributes:
    index: Of the ask.
    ask: What is asked.
    places: Which of the ask's samples, by place.
    drafts: One a place.
    left: Drafts not done.
    waiting: Drafts that no row has begun, as far as the host knows.
  """

  index: int
  ask: Ask
  places: tuple[int, ...]
  drafts: list[Draft]
  left: int
  waiting: int

  @property
  def begun(self) -> int:
    """Drafts that are being drawn."""
    return self.left - self.waiting


@dataclass(frozen=True, slots=True)
class Place:
  """Where a draft is: what a stop must reach."""

  order: Order
  place: int
  slot: int
  row: int
  entry: int


Owners = list[list[Order | None]]
