"""Batches hold all, evenly, by lot, and a problem's solutions together."""

import numpy as np
import pytest

from rest.m_step.batches import count_batches, draw_batches
from rest.m_step.packing import Example


def _examples(count: int, problems: int) -> list[Example]:
  random = np.random.default_rng(0)
  return [
    Example(
      (int(random.integers(1, problems + 1)),) * 9,
      (1,) * int(np.clip(random.lognormal(4.7, 0.5), 16, 512)),
    )
    for _ in range(count)
  ]


def test_one_long_problem_makes_no_long_batch():
  """One in fifty takes three times the tokens that it would."""
  random = np.random.default_rng(0)
  lengths = random.lognormal(4.7, 0.5, 800)
  lengths[::50] *= 3
  examples = [
    Example((i,) * 9, (1,) * int(length))
    for i, length in enumerate(lengths)
    for _ in range(4)
  ]
  batches = draw_batches(examples, 32, 0, 0)
  tokens = np.array([sum(examples[i].length for i in b) for b in batches])
  assert tokens.max() < 1.02 * tokens.mean()


@pytest.mark.parametrize('size', [1, 5, 32, 999])
@pytest.mark.parametrize('problems', [1, 60, 10**6])
def test_each_solution_is_in_one_batch(size: int, problems: int):
  examples = _examples(200, problems)
  batches = draw_batches(examples, size, 0, 0)
  assert sorted(i for batch in batches for i in batch) == [*range(200)]
  assert len(batches) == count_batches(examples, size)
  assert all(batches)


def test_batches_are_a_function_of_seed_and_epoch():
  examples = _examples(200, 60)
  assert draw_batches(examples, 16, 1, 2) == draw_batches(examples, 16, 1, 2)
  assert draw_batches(examples, 16, 1, 2) != draw_batches(examples, 16, 1, 3)
  assert draw_batches(examples, 16, 1, 2) != draw_batches(examples, 16, 2, 2)


@pytest.mark.parametrize('problems', [1, 500, 10**6])
def test_batches_are_nearly_equal_in_solutions_and_in_tokens(problems: int):
  examples = _examples(2000, problems)
  batches = draw_batches(examples, 32, 0, 0)
  counts = np.array([len(batch) for batch in batches])
  tokens = np.array([sum(examples[i].length for i in b) for b in batches])
  assert np.ptp(counts) <= 8  # A quarter of a batch.
  assert tokens.max() < 1.02 * tokens.mean()


def test_what_is_drawn_of_a_problem_is_in_one_batch_or_a_quarter_of_one():
  examples = _examples(400, 100)
  batches = draw_batches(examples, 32, 0, 0)
  for question in {e.question for e in examples}:
    held = [sum(examples[i].question == question for i in b) for b in batches]
    assert sum(n > 0 for n in held) <= -(-sum(held) // 8)


def test_the_draw_that_is_told():
  """As in `draw_batches`."""
  problems = 1, 1, 1, 1, 2, 2, 3, 3, 4
  examples = [Example((x,), (1,) * (9 - 2 * x)) for x in problems]
  one, other = sorted(draw_batches(examples, 8, 0, 0), key=len)
  questions = [[examples[i].question[0] for i in b] for b in (one, other)]
  assert [len(x) for x in questions] == [4, 5]
  assert [x[:2] for x in questions] == [[1, 1], [1, 1]]
  assert {*questions[0][2:4], *questions[1][2:4]} == {2, 3}
  assert questions[1][4] == 4
