"""Draws which solutions make up each step's batch, however they are packed.

All that is drawn of a problem stands in one batch, as verl's groups do, so that
packing can share its question; only what is more than a quarter of a batch is
cut. Rows, their length and sharing change nothing of it.
"""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from rest.m_step.packing import Example


def count_batches(examples: Sequence[Example], size: int) -> int:
  """Returns how many batches an epoch has: the least that hold `size` each."""
  return -(-len(examples) // size)


def draw_batches(
  examples: Sequence[Example], size: int, seed: int, epoch: int
) -> list[list[int]]:
  """Returns the indices of the examples in each batch of an epoch.

  Invariant: each example is in one batch, and batches are nearly equal, in
  solutions and in tokens: groups are ordered by both, each batch gets one of
  the first, the next and so on, by lot, and then some are exchanged. Nine
  solutions of problems a, b, c and d, with 4, 2, 2 and 1, in batches of 8,
  which may hold 2 of a problem:

    groups    aa aa | bb cc | d        by size; a is cut
    batches   aa bb d,  aa cc          by lot within each pair

  Args:
    examples: What was kept.
    size: Solutions in a batch, about.
    seed: With `epoch`, the lot.
    epoch: How often the examples were seen before.
  """
  random = np.random.default_rng([seed, epoch])
  problems: defaultdict[Sequence[int], list[int]] = defaultdict(list)
  for index in random.permutation(len(examples)).tolist():
    problems[examples[index].question].append(index)
  most = max(1, size // 4)
  groups = [
    members[i : i + most]
    for members in problems.values()
    for i in range(0, len(members), most)
  ]

  def tokens(group: list[int]) -> int:
    answers = sum(len(examples[i].completion) for i in group)
    return len(examples[group[0]].question) + answers

  groups.sort(key=lambda group: (len(group), tokens(group)), reverse=True)
  count = count_batches(examples, size)
  batches: list[list[list[int]]] = [[] for _ in range(count)]
  for i in range(0, len(groups), count):
    places = random.permutation(count).tolist()
    for place, group in zip(places, groups[i : i + count], strict=False):
      batches[place].append(group)
  _level(batches, [np.array([*map(tokens, batch)]) for batch in batches])
  return [[index for group in batch for index in group] for batch in batches]


def _level(batches: list[list[list[int]]], tokens: list[np.ndarray]) -> None:
  """Exchanges groups of as many solutions, until tokens are nearly equal.

  A row is as long as the longest batch: one that is a fifth longer than others
  costs all steps a fifth. The longest and the shortest exchange the two groups
  that bring them closest, as long as there are any. Example: of a batch with
  groups of 90 and 40 tokens, and one with 70 and 20, 90 goes for 70: both then
  have 110.

  Args:
    batches: Groups of indices.
    tokens: Of each group of each batch.
  """
  loads = np.array([group.sum() for group in tokens])
  while True:
    long, short = int(loads.argmax()), int(loads.argmin())
    gap = loads[long] - loads[short]
    solutions = [[*map(len, batches[place])] for place in (long, short)]
    less = tokens[long][:, None] - tokens[short][None]
    fits = np.equal.outer(*solutions) & (less > 0) & (less < gap)
    if not fits.any():
      return
    cost = np.where(fits, np.abs(2 * less - gap), gap)
    one, other = np.unravel_index(cost.argmin(), cost.shape)
    loads[[long, short]] += less[one, other] * np.array([-1, 1])
    for x in batches, tokens:
      x[long][one], x[short][other] = x[short][other], x[long][one]
