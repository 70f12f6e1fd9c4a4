"""Estimators agree with enumeration, and intervals with what they promise."""

import itertools

import numpy as np
import pytest

from rest import metrics


def test_pass_at_k_is_the_share_of_subsets_with_a_correct_sample():
  rewards = [1, 0, 0, 1, 0, 0]
  for k in range(1, 7):
    subsets = list(itertools.combinations(rewards, k))
    share = sum(any(subset) for subset in subsets) / len(subsets)
    assert metrics.pass_at_k(6, 2, k) == pytest.approx(share)


def test_pass_at_k_is_one_when_wrong_samples_do_not_fill_k():
  assert metrics.pass_at_k(64, 60, 8) == 1.0


@pytest.mark.parametrize('arguments', [(4, 5, 1), (4, 1, 5), (4, 1, 0)])
def test_pass_at_k_refuses_what_has_no_meaning(arguments):
  with pytest.raises(ValueError, match='pass@k needs'):
    metrics.pass_at_k(*arguments)


def test_a_vote_does_not_depend_on_order():
  answers, correct = ['7', '7', '8', '8', ''], [True, True, False, False, False]
  for order in itertools.permutations(range(5)):
    vote = metrics.majority(
      [answers[i] for i in order], [correct[i] for i in order]
    )
    assert vote == 0.5


def test_of_answers_that_count_as_equal_any_may_speak():
  answers, correct = ['5', '5', '5', '6'], [True, False, True, True]
  assert metrics.majority(answers, correct) == 2 / 3


def test_the_larger_vote_wins_and_silence_does_not_vote():
  assert metrics.majority(['1', '2', '2', '', ''], [1, 0, 0, 0, 0]) == 0.0
  assert metrics.majority(['', ''], [False, False]) == 0.0


def test_the_interval_covers_the_truth_nineteen_times_in_twenty():
  rng = np.random.default_rng(1)
  for share in (0.05, 0.4, 0.9):
    draws = rng.binomial(200, share, size=2000)
    covered = [
      low <= share <= high
      for low, high in (metrics.interval(int(draw), 200) for draw in draws)
    ]
    assert 0.93 <= np.mean(covered) <= 0.975


def test_the_interval_holds_its_share_to_the_last_bit():
  for trials in range(1, 300):
    for successes in (0, 1, trials - 1, trials):
      low, high = metrics.interval(successes, trials)
      assert 0 <= low <= successes / trials <= high <= 1


def test_a_paired_gain_is_surer_than_two_separate_scores():
  rng = np.random.default_rng(2)
  before = (rng.random(500) < 0.5).astype(float)
  after = np.where(rng.random(500) < 0.1, 1.0, before)
  gain, low, high = metrics.paired_gain(before, after)
  assert low < gain < high
  assert low > 0
  assert high - low < 0.08


def test_the_interval_holds_the_luck_of_seeds_and_of_problems():
  rng = np.random.default_rng(3)
  covered = []
  for _ in range(200):
    problems_P = rng.normal(0, 0.3, 60)
    seeds_S1 = rng.normal(0, 0.2, (8, 1))
    scores_SP = 0.5 + problems_P + seeds_S1 + rng.normal(0, 0.1, (8, 60))
    _, low, high = metrics.mean_interval(scores_SP, resamples=400)
    covered.append(low <= 0.5 <= high)
  assert 0.88 <= np.mean(covered) <= 0.99


def test_one_seed_gives_the_bootstrap_over_problems():
  scores = np.random.default_rng(4).random(80)
  mean, low, high = metrics.mean_interval(scores[None])
  error = scores.std() / np.sqrt(80)
  assert mean == pytest.approx(scores.mean())
  assert high - low == pytest.approx(2 * 1.96 * error, rel=0.05)
  assert metrics.paired_gain([0.0] * 80, list(scores)) == (mean, low, high)
