"""The E-step load that samplers are timed on: the same for all of them.

Few-shot tokens that all prompts share, a question per problem, and a length
imposed on each completion, so that every sampler does the same work.
"""

from dataclasses import dataclass

import numpy as np

from rest.sampler import Ask


@dataclass(frozen=True, slots=True)
class Workload:
  """Prompts and how long each of their completions is."""

  prefix: list[int]
  asks: list[Ask]

  @property
  def completions(self) -> int:
    """How many completions are drawn."""
    return sum(len(ask.samples) for ask in self.asks)

  @property
  def tokens(self) -> int:
    """How many tokens are drawn."""
    return sum(sum(ask.limits) for ask in self.asks)


def make(
  problems: int = 128,
  samples: int = 32,
  prefix: int = 640,
  vocab: int = 150_000,
  longest: int = 512,
  median: int = 160,
  sigma: float = 0.6,
  seed: int = 0,
) -> Workload:
  """Returns the load of so many problems.

  Questions have 64 to 192 tokens. Lengths are lognormal, cut to 16 and
  `longest`; those of a thinking model have a median of 1,200 and sigma 0.83.
  """
  random = np.random.default_rng(seed)
  shared = random.integers(1, vocab, prefix).tolist()
  questions = [
    tuple(random.integers(1, vocab, int(n)).tolist())
    for n in random.integers(64, 193, problems)
  ]
  lengths = random.lognormal(np.log(median), sigma, (problems, samples))
  asks = [
    Ask(index, question, tuple(range(samples)), tuple(limits))
    for index, (question, limits) in enumerate(
      zip(
        questions,
        np.clip(lengths.astype(int), 16, longest).tolist(),
        strict=True,
      )
    )
  ]
  return Workload(shared, asks)
