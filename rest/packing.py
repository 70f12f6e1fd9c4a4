"""Packs training sequences into rows of one length, on the host.

Sequences share a row as segments, each with positions from 0; attention never
crosses a segment. Which sequences share a row, and the order of the rows, are
a function of (lengths, seed, epoch) and nothing else.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

# A row holds at most row_length / 32 segments (but 16 in a short row), so that
# kernels may size their tables by it; see `most_segments`.
_TOKENS_A_SEGMENT = 32
_SEGMENTS_ALWAYS = 16


@dataclass(frozen=True, slots=True)
class Example:
  """One training sequence; the loss is on the completion only.

  Attributes:
    prompt: Token ids, at least one (the begin token where nothing is asked).
    completion: Token ids, at least one; ends with the end token.
    weight: Multiplies the loss of each of its tokens.
  """

  prompt: tuple[int, ...]
  completion: tuple[int, ...]
  weight: float = 1.0

  @property
  def length(self) -> int:
    """Positions that it takes in a row: the last token is only a target."""
    return len(self.prompt) + len(self.completion) - 1


class Batch(NamedTuple):
  """Packed rows.

  Attributes:
    tokens_BT: Inputs, int32; 0 in padding.
    targets_BT: The token that follows each input in its sequence, int32.
    segments_BT: Sequence number within the row from 1, int32; 0 is padding.
    positions_BT: Position within the sequence from 0, int32.
    weights_BT: Weight of the loss of predicting each target, float32; 0 for
      prompts and padding.
  """

  tokens_BT: np.ndarray
  targets_BT: np.ndarray
  segments_BT: np.ndarray
  positions_BT: np.ndarray
  weights_BT: np.ndarray


class Packed(Sequence[Batch]):
  """The batches of one epoch, each assembled when it is asked for.

  Rows are spread evenly: no batch has more than one row more than another,
  so that the last step of an epoch is not a mean over a handful of tokens.

  Attributes:
    padding: Share of positions, in rows that hold anything, that are padding.
  """

  def __init__(
    self,
    examples: Sequence[Example],
    members: list[list[int]],
    row_length: int,
    rows: int,
  ):
    """Holds `members`: for each row, the indices of its examples."""
    self._examples = examples
    self._row_length = row_length
    self._rows = rows
    count = max(1, -(-len(members) // rows))
    cuts = [len(members) * i // count for i in range(count + 1)]
    self._batches = [members[a:b] for a, b in itertools.pairwise(cuts)]
    used = sum(example.length for example in examples)
    self.padding = 1 - used / (max(1, len(members)) * row_length)

  def __len__(self) -> int:
    return len(self._batches)

  def __iter__(self) -> Iterator[Batch]:
    return (self[i] for i in range(len(self)))

  def members(self, index: int) -> list[int]:
    """Returns the indices of the examples in a batch."""
    return sorted(i for row in self._batches[index] for i in row)

  def __getitem__(self, index: int) -> Batch:  # pyright: ignore[reportIncompatibleMethodOverride]  No slices.
    shape = (self._rows, self._row_length)
    kinds = (np.int32,) * 4 + (np.float32,)
    batch = Batch._make(np.zeros(shape, kind) for kind in kinds)
    for row, members in enumerate(self._batches[index]):
      start = 0
      for segment, member in enumerate(members, 1):
        start = _write(batch, row, start, segment, self._examples[member])
    return batch


def pack(
  examples: Sequence[Example],
  row_length: int,
  rows: int,
  seed: int = 0,
  epoch: int = 0,
) -> Packed:
  """Packs all examples, each once, into batches.

  Best fit, longest first: for lengths well below `row_length` the padding is
  under one percent. The number of batches does not depend on seed and epoch.

  Args:
    examples: What to pack.
    row_length: Positions in a row, T.
    rows: Rows in a batch, B; the last ones are empty where rows run short.
    seed: With `epoch`, the order.
    epoch: How often the examples were seen before.

  Raises:
    ValueError: There are no examples, or one is empty or too long for a row.
  """
  _check(examples, row_length)
  random = np.random.default_rng([seed, epoch])
  lengths = np.array([example.length for example in examples])
  order = random.permutation(len(examples))
  order = order[np.argsort(-lengths[order], kind='stable')]
  members = _best_fit(lengths, order, row_length)
  members = [members[i] for i in random.permutation(len(members))]
  return Packed(examples, members, row_length, rows)


def most_segments(row_length: int) -> int:
  """Returns how many sequences `pack` puts into one row at most."""
  return max(_SEGMENTS_ALWAYS, row_length // _TOKENS_A_SEGMENT)


def _check(examples: Sequence[Example], row_length: int) -> None:
  if not examples:
    raise ValueError('there are no examples to train on.')
  for i, example in enumerate(examples):
    if not example.prompt or not example.completion:
      raise ValueError(
        f'example {i} must have a prompt and a completion of at least one '
        f'token each; got {len(example.prompt)} and {len(example.completion)}.'
      )
    if example.length > row_length:
      raise ValueError(
        f'example {i} takes {example.length} positions but row_length is '
        f'{row_length}: raise row_length or shorten the example.'
      )
    if not 0 < example.weight < float('inf'):
      raise ValueError(
        f'example {i} must have a positive weight; got {example.weight}.'
      )


def _best_fit(
  lengths: np.ndarray, order: np.ndarray, row_length: int
) -> list[list[int]]:
  """Puts each example where the least room is left over, in `order`."""
  most = most_segments(row_length)
  members: list[list[int]] = []
  open_rows: list[list[int]] = [[] for _ in range(row_length + 1)]
  rooms = 0  # Bit r is set where open_rows[r], rows with room r, is not empty.
  for index in order.tolist():
    length = int(lengths[index])
    fitting = rooms >> length
    if fitting:
      room = length + (fitting & -fitting).bit_length() - 1
      row = open_rows[room].pop()
      if not open_rows[room]:
        rooms ^= 1 << room
    else:
      room, row = row_length, len(members)
      members.append([])
    members[row].append(index)
    room -= length
    if room and len(members[row]) < most:
      open_rows[room].append(row)
      rooms |= 1 << room
  return members


def _write(
  batch: Batch, row: int, start: int, segment: int, example: Example
) -> int:
  """Writes an example into a row and returns where the next one starts."""
  tokens = np.array(example.prompt + example.completion, np.int32)
  span = slice(start, start + example.length)
  batch.tokens_BT[row, span] = tokens[:-1]
  batch.targets_BT[row, span] = tokens[1:]
  batch.segments_BT[row, span] = segment
  batch.positions_BT[row, span] = np.arange(example.length)
  first = start + len(example.prompt) - 1
  batch.weights_BT[row, first : span.stop] = example.weight
  return span.stop
