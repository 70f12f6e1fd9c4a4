"""What a run is measured by: pass@k, maj@k, and how sure we are of them."""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np


def pass_at_k(samples: int, correct: int, k: int) -> float:
  """Returns the chance that k of the samples, drawn without putting back,
  hold a correct one.

  The unbiased estimator of Chen et al., arXiv:2107.03374: 1 - C(n-c, k) /
  C(n, k).

  Raises:
    ValueError: k is not in 1..samples, or correct not in 0..samples.
  """
  if not 1 <= k <= samples or not 0 <= correct <= samples:
    raise ValueError(
      f'pass@k needs 1 <= k <= samples and 0 <= correct <= samples; got '
      f'k={k}, samples={samples}, correct={correct}.'
    )
  return 1.0 - math.comb(samples - correct, k) / math.comb(samples, k)


def majority(answers: Sequence[str], correct: Sequence[bool]) -> float:
  """Returns the chance that a vote over the answers is right.

  Samples without an answer ('') do not vote. Ties are broken by lot, and so is
  which sample speaks for an answer, since of answers that count as equal some
  may be wrong ('5 m' where '5 cm' is right, for the sake of '5'). So the result
  is the right share of the samples that won, never a matter of order.

  Args:
    answers: Equal ones are written alike.
    correct: Whether each is right.
  """
  votes = Counter(answer for answer in answers if answer)
  if not votes:
    return 0.0
  most = max(votes.values())
  won = [
    is_correct
    for answer, is_correct in zip(answers, correct, strict=True)
    if votes[answer] == most
  ]
  return sum(won) / len(won)


def interval(successes: float, trials: int) -> tuple[float, float]:
  """Returns the 95 % Wilson score interval of a share."""
  if trials == 0:
    return (0.0, 1.0)
  z = 1.959964
  share = successes / trials
  center = share + z * z / (2 * trials)
  spread = z * math.sqrt(
    share * (1 - share) / trials + z * z / (4 * trials * trials)
  )
  scale = 1 + z * z / trials
  # Rounding must not leave the share itself outside, at 0 and at 1.
  low, high = (center - spread) / scale, (center + spread) / scale
  return (max(0.0, min(share, low)), min(1.0, max(share, high)))


def mean_interval(
  scores_SP: np.ndarray, resamples: int = 10_000
) -> tuple[float, float, float]:
  """Returns the mean of scores, with its 95 % bootstrap interval.

  Seeds are the outer level: a draw takes seeds, and problems that are the same
  for all of them, both with putting back (Owen, arXiv:0711.1044). The draws are
  fixed.

  Args:
    scores_SP: By seed and problem; one row where there is one seed, whose own
      luck the interval then leaves out.
    resamples: Draws.
  """
  seeds, problems = scores_SP.shape
  rng = np.random.default_rng(0)
  means = []
  chunk = max(1, min(resamples, 2_000_000 // (seeds * problems)))
  for first in range(0, resamples, chunk):
    count = min(chunk, resamples - first)
    chosen = rng.integers(0, problems, (count, problems))
    by_seed_SR = scores_SP[:, chosen].mean(-1)
    drawn_SR = rng.integers(0, seeds, (seeds, count))
    means.append(np.take_along_axis(by_seed_SR, drawn_SR, 0).mean(0))
  low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
  return float(scores_SP.mean()), float(low), float(high)


def paired_gain(
  before: Sequence[float], after: Sequence[float]
) -> tuple[float, float, float]:
  """Returns the mean gain over the same problems, with its 95 % interval.

  Both scores of a problem are drawn together, so that what is common to both
  (hard problems) cancels.
  """
  gains = np.asarray(after, np.float64) - np.asarray(before, np.float64)
  return mean_interval(gains[None])
