"""Puts the solutions of a batch into rows, on the host: each row a forest.

A row holds the prefix that all prompts share once, behind it questions, behind
each question its solutions. The prompt 1 2 5 6 with the completions 7 9 and 8 4
9, and the prompt 1 2 3 with 4 9, where 1 2 is the prefix, in a row of 11:

    tokens      1  2 | 5 | 6 7 | 6 8 4 |  3  4 | 0
    targets     0  0 | 0 | 7 9 | 8 4 9 |  4  9 | 0
    positions   0  1 | 2 | 3 4 | 3 4 5 |  2  3 | 0
    ends       10 10 | 8 | 5 5 | 8 8 8 | 10 10 | 0
    weights     0  0   0   1 1   1 1 1    1  1   0

The last token of a prompt predicts the first of each of its solutions, so it
stands at the head of each, and never in the question. Positions count along a
token's own path. What sees a token stands in one run, from itself to its end: a
query q sees a key k if and only if k <= q < ends[k], and padding, with an end
of 0, is seen by nothing.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np

from rest.model.tokenizer import check_ids

# Kernels come in tiles of so many positions.
_TILE = 64

# For each row its questions, for each of them the indices of its solutions.
_Forest = list[list[list[int]]]


@dataclass(frozen=True, slots=True)
class Example:
  """One solution behind its prompt; the loss is on the completion only.

  Attributes:
    question: Token ids of the prompt behind the prefix, at least one (the begin
      token where nothing is asked).
    completion: Token ids, at least one; ends with the end token.
    weight: Multiplies the loss of each of its tokens.
    prefix: Token ids before the question, the same in all examples.
  """

  question: Sequence[int]
  completion: Sequence[int]
  weight: float = 1.0
  prefix: tuple[int, ...] = ()

  @property
  def length(self) -> int:
    """Positions that it takes alone: its last token is only a target."""
    return len(self.prefix) + len(self.question) + len(self.completion) - 1


class Batch(NamedTuple):
  """Packed rows: NumPy arrays on the host, then JAX's on devices.

  Attributes:
    tokens_BT: Inputs, int32; 0 in padding.
    targets_BT: The token to predict, int32; 0 where there is none.
    ends_BT: End of the run of tokens, from itself on, that see this one, int32;
      0 for padding.
    positions_BT: Position along its own path from 0, int32.
    weights_BT: Weight of the loss of predicting each target, float32; 0 for
      prompts and padding.
  """

  tokens_BT: Any
  targets_BT: Any
  ends_BT: Any
  positions_BT: Any
  weights_BT: Any


@dataclass(frozen=True, slots=True)
class Shape:
  """The rows that every batch of a training has.

  Attributes:
    rows: In a batch, B.
    length: Positions in a row, T.
    used: Positions of a batch that are not padding, on average.
  """

  rows: int
  length: int
  used: float

  @property
  def padding(self) -> float:
    """Share of positions that are padding."""
    return 1 - self.used / (self.rows * self.length)


def check(examples: Sequence[Example], row_length: int) -> None:
  """Refuses what cannot be packed.

  Raises:
    ValueError: There are no examples, one is empty or too long for a row, or
      has another prefix than the first.
  """
  if not examples:
    raise ValueError('there are no examples to train on.')
  prefix = examples[0].prefix
  for i, example in enumerate(examples):
    if not example.question or not example.completion:
      raise ValueError(
        f'example {i} must have a question and a completion of at least one '
        f'token each; got {len(example.question)} and '
        f'{len(example.completion)}.'
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
    if example.prefix != prefix:
      raise ValueError(
        f'example {i} must have the prefix of example 0, which all share.'
      )


def check_vocabulary(examples: Sequence[Example], vocab: int) -> None:
  """Refuses ids that the embedding has no row for; a gather would not fail.

  Raises:
    ValueError: Names the example, what was read of it, and the id.
  """
  check_ids(examples[0].prefix, vocab, 'the prefix')
  questions: set[Sequence[int]] = set()
  for i, example in enumerate(examples):
    if example.question not in questions:
      questions.add(example.question)
      check_ids(example.question, vocab, f'question of example {i}')
    check_ids(example.completion, vocab, f'completion of example {i}')


def plan(
  examples: Sequence[Example],
  batches: Iterable[Sequence[int]],
  row_length: int,
  rows: int,
  shards: int,
  share: bool,
) -> Shape:
  """Returns the rows that hold each of the batches with least padding.

  As few rows as `row_length` allows, so that the prefix is repeated least; then
  as short as they can be. Batches of 5,200 positions and a prefix of 700 fill a
  row of 5,632 where it may have 8,192, two of 3,072 where it may have 4,096.

  Args:
    examples: What was checked.
    batches: The indices of the examples in each.
    row_length: Most positions in a row.
    rows: Most rows that a device works on at a time. Where a batch needs more,
      they are a multiple of the parts that it is worked on in.
    shards: Devices that hold different rows: each gets as many.
    share: Whether prefixes and questions are shared.
  """
  batches = list(batches)

  def positions(count: int, length: int) -> list[int]:
    """Returns those that each batch takes, none if one does not fit."""
    found = []
    for batch in batches:
      placed = _place(examples, batch, count, length, share)
      if placed is None:
        return []
      found.append(placed[1])
    return found

  count = shards
  while not (used := positions(count, row_length)):
    count += shards
    while count % (parts(count, rows * shards) * shards):
      count += shards
  fitting = (
    (length, found)
    for length in _lengths(row_length)
    if length * count >= max(used) and (found := positions(count, length))
  )
  length, used = next(fitting)
  return Shape(count, length, sum(used) / len(batches))


def parts(count: int, rows: int) -> int:
  """Returns in how many parts a batch is worked on, `rows` at most in each."""
  return -(-count // rows)


def pack(
  examples: Sequence[Example], batch: Sequence[int], shape: Shape, share: bool
) -> Batch:
  """Returns the rows of a batch that `plan` has seen.

  Args:
    examples: Of which the batch has some.
    batch: Their indices.
    shape: Of the rows.
    share: Whether prefixes and questions are shared.
  """
  placed = _place(examples, batch, shape.rows, shape.length, share)
  assert placed is not None
  kinds = (np.int32,) * 4 + (np.float32,)
  packed = Batch._make(
    np.zeros((shape.rows, shape.length), kind) for kind in kinds
  )
  for row, trees in zip(zip(*packed, strict=True), placed[0], strict=True):
    if trees:
      _write(Batch._make(row), trees, examples, share)
  return packed


def _lengths(row_length: int) -> list[int]:
  """Returns the lengths that rows may have, ascending: eight to an octave.

  Few, so that the next iteration's rows are likely to have one that is compiled
  already: 4,096, 4,608, 5,120 ... 8,192.
  """
  eighths = (
    eighth << octave
    for octave in range(row_length.bit_length())
    for eighth in range(8, 16)
  )
  tiles = {-(-length // _TILE) * _TILE for length in eighths}
  return [*sorted(n for n in tiles if n < row_length), row_length]


def _place(
  examples: Sequence[Example],
  batch: Sequence[int],
  rows: int,
  length: int,
  share: bool,
) -> tuple[_Forest, int] | None:
  """Returns which solutions stand in which row, and how many positions that is.

  None if there is no room. First fit, the largest questions first, of each the
  longest solutions first: to a row that has the question, else to any, where
  the question is repeated.

  Invariant: each solution is in one row; `room` is what its prefix, questions
  and solutions leave. A question of 3 positions with solutions of 5, 4 and 2,
  and one of 1 with 4, in two rows of 12 with a prefix of 2: the first row takes
  2 + 3 + 5 and the 2; the second 2 + 3 + 4, and has no room for 1 + 4.
  """
  prefix = len(examples[0].prefix)
  # By question: positions before the heads of its solutions, and of each its
  # own and its index. An example may be made anew each time it is asked for.
  trunks: dict[Any, int] = {}
  groups: defaultdict[Any, list[tuple[int, int]]] = defaultdict(list)
  for index in batch:
    example = examples[index]
    question = example.question if share else index
    trunks[question] = len(example.question) - 1 + (0 if share else prefix)
    groups[question].append((len(example.completion), index))

  def size(question: Any) -> int:
    return trunks[question] + sum(need for need, _ in groups[question])

  most = length - (prefix if share else 0)
  room = [most] * rows
  forest: _Forest = [[] for _ in range(rows)]
  for question in sorted(groups, key=size, reverse=True):
    trees: dict[int, list[int]] = {}  # By row.
    solutions = sorted(groups[question], key=itemgetter(0), reverse=True)
    for need, index in solutions:
      row = next((r for r in trees if room[r] >= need), None)
      if row is None:
        need += trunks[question]
        row = next((r for r in range(rows) if room[r] >= need), None)
        if row is None:
          return None
        trees[row] = []
        forest[row].append(trees[row])
      trees[row].append(index)
      room[row] -= need
  return forest, sum(length - left for left in room if left < most)


def _write(
  row: Batch, trees: list[list[int]], examples: Sequence[Example], share: bool
) -> None:
  """Writes trees into the arrays of a row, [T] each."""

  def write(start: int, tokens: Sequence[int], position: int) -> int:
    end = start + len(tokens)
    row.tokens_BT[start:end] = tokens
    row.positions_BT[start:end] = np.arange(position, position + len(tokens))
    return end

  prefix = examples[0].prefix
  header = place = write(0, prefix, 0) if share else 0
  for tree in trees:
    *trunk, last = examples[tree[0]].question
    question = place
    if not share:
      place = write(place, prefix, 0)
    place = write(place, trunk, len(prefix))
    answers = place
    for index in tree:
      example, start = examples[index], place
      completion = [*example.completion]  # Read once.
      tokens = [last, *completion[:-1]]
      place = write(start, tokens, len(prefix) + len(trunk))
      row.targets_BT[start:place] = completion
      row.weights_BT[start:place] = example.weight
      row.ends_BT[start:place] = place
    row.ends_BT[question:answers] = place
  row.ends_BT[:header] = place
