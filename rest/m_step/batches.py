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
  solutions and in tokens: groups are ordered by both, and each batch gets one
  of the first, the next and so on, by lot, where those that have less so far
  are likely to get more. Nine solutions of problems a, b, c and d, with 4, 2, 2
  and 1, in batches of 8, which may hold 2 of a problem:

    groups    aa aa | bb cc | d        by size; a is cut
    batches   aa bb d,  aa cc          by lot within each pair

  Args:
    examples: What was kept.
    size: Solutions in a batch, about.
    seed: With `epoch`, the lot.
    epoch: How often the examples were seen before.
  """
  random = np.random.default_rng([seed, epoch])
  problems: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
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
  batches: list[list[int]] = [[] for _ in range(count)]
  loads = np.zeros(count)
  for i in range(0, len(groups), count):
    stratum = groups[i : i + count]
    sizes = [tokens(group) for group in stratum]
    lots = random.uniform(0, 1 + max(sizes) - min(sizes), count)
    places = np.argsort(loads + lots)[: len(stratum)].tolist()
    for place, group in zip(places, stratum, strict=True):
      batches[place] += group
    loads[places] += sizes
  return [batches[i] for i in random.permutation(count)]
