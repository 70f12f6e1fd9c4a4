"""Packs training sequences into rows of one length, on the host.

Sequences share a row as segments, each with positions from 0; attention never
crosses a segment. The prompt 5 6 with its completion 7 8 9, and the prompt 3
with its completion 4 2, in a row of 8:

    tokens      5 6 7 8 | 3 4 | 0 0     a sequence's last token is no input
    targets     6 7 8 9 | 4 2 | 0 0     each token's next one
    segments    1 1 1 1 | 2 2 | 0 0     0 is padding
    positions   0 1 2 3 | 0 1 | 0 0
    weights     0 1 1 1 | 1 1 | 0 0     the loss is on completions
    sees        x       |     |         a token sees what stands before it in
                x x     |     |         its segment, and itself
                x x x   |     |
                x x x x |     |
                        | x   |
                        | x x |

Which sequences share a row is a function of (lengths, seed), the order of the
rows one of (lengths, seed, epoch).
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

# A row holds at most row_length / 128 segments (but 16 in a short row), so that
# one row is not filled with a great many tiny sequences.
_TOKENS_A_SEGMENT = 128
_SEGMENTS_ALWAYS = 16
# A row is full when less than this is left.
_SLACK = 16


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
  """Packed rows: NumPy arrays on the host, then JAX's on devices.

  Attributes:
    tokens_BT: Inputs, int32; 0 in padding.
    targets_BT: The token that follows each input in its sequence, int32.
    segments_BT: Sequence number within the row from 1, int32; 0 is padding.
    positions_BT: Position within the sequence from 0, int32.
    weights_BT: Weight of the loss of predicting each target, float32; 0 for
      prompts and padding.
  """

  tokens_BT: Any
  targets_BT: Any
  segments_BT: Any
  positions_BT: Any
  weights_BT: Any


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

  Where a row holds a few examples or more, about two percent of it are padding.
  The number of batches does not depend on the epoch.

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
  lengths = [example.length for example in examples]
  order = np.random.default_rng(seed).permutation(len(examples)).tolist()
  rows_of = _fill_rows(lengths, order, row_length)
  shuffled = np.random.default_rng([seed, epoch]).permutation(len(rows_of))
  members = [rows_of[i] for i in shuffled]
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


class _Shelf:
  """Examples by length, with sets of lengths as the bits of an integer."""

  def __init__(self, lengths: Sequence[int], order: Iterable[int], top: int):
    """Holds the examples in `order`; no length is above `top`."""
    self._top = top
    self._by_length: list[list[int]] = [[] for _ in range(top + 1)]
    self._there = 0  # Bit n: there is an example of length n.
    self._mirror = 0  # Bit top - n: the same.
    for index in order:
      n = lengths[index]
      self._by_length[n].append(index)
      self._there |= 1 << n
      self._mirror |= 1 << (top - n)

  def longest(self, room: int) -> int:
    """Returns the largest length that fits, or 0."""
    return (self._there & ((2 << room) - 1)).bit_length() - 1 if room else 0

  def shortest(self) -> int:
    return (self._there & -self._there).bit_length() - 1

  def pair(self, total: int) -> int:
    """Returns the longer of two examples' lengths that add up, or 0."""
    if not 0 < total <= self._top:
      return 0
    both = self._there & (self._mirror >> (self._top - total))
    half, odd = divmod(total, 2)
    if not odd and len(self._by_length[half]) < 2:
      both &= ~(1 << half)
    return max(0, both.bit_length() - 1)

  def take(self, length: int) -> int:
    index = self._by_length[length].pop()
    if not self._by_length[length]:
      self._there ^= 1 << length
      self._mirror ^= 1 << (self._top - length)
    return index


def _fill_rows(
  lengths: Sequence[int], order: Iterable[int], row_length: int
) -> list[list[int]]:
  """Returns the members of each row.

  Invariant: each example is in one row, and what is in a row fits. Lengths 7,
  6, 4 and 2 in rows of 10: 6 and 4 come first, since they fill a row; 7 and 2
  nearly do.
  """
  shelf = _Shelf(lengths, order, row_length)
  most = most_segments(row_length)
  rows: list[list[int]] = []
  while shelf.shortest() > 0:
    row: list[int] = []
    room = row_length
    while len(row) < most:
      chosen = _next(shelf, room, most - len(row))
      if not chosen:
        break
      row += [shelf.take(length) for length in chosen]
      room -= sum(chosen)
    rows.append(row)
  return rows


def _next(shelf: _Shelf, room: int, places: int) -> tuple[int, ...]:
  """Returns the lengths to put into a row next, none if it is full.

  One that fills the room; else the two that fill it best, if they leave less
  than `_SLACK`; else the longest that leaves room for another, or fits at all.
  """
  longest, shortest = shelf.longest(room), shelf.shortest()
  if longest < 1 or longest == room:
    return (longest,) if longest > 0 else ()
  if places > 1:
    for total in range(room, max(room - _SLACK, 0), -1):
      if longer := shelf.pair(total):
        return longer, total - longer
  with_another = shelf.longest(room - shortest) if room > shortest else 0
  return (with_another if with_another > 0 else longest,)


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
