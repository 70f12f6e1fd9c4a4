"""What is kept depends on samples and verdicts, never on order."""

import itertools
import random

import pytest

from rest.e_step import random_key
from rest.keep import EStepConfig, keep
from rest.types import Completion, Graded, Verdict


def _row(
  sample: int,
  reward: float | None = 1.0,
  text: str | None = None,
  finished: bool = True,
) -> Graded:
  text = f'answer {sample}' if text is None else text
  completion = Completion(text, (1,), (-1.0,), finished)
  return Graded('p', sample, 'q', completion, Verdict(reward, '', 'math-1'))


def _samples(rows: list[Graded], config: EStepConfig) -> list[int]:
  return [row.sample for row in keep(rows, config)]


def test_only_finished_correct_samples_are_kept():
  rows = [_row(0, 0.0), _row(1, None), _row(2, finished=False), _row(3)]
  assert _samples(rows, EStepConfig()) == [3]


def test_the_cap_takes_the_first_by_sample_index_in_any_order_of_arrival():
  rows = [_row(i, float(i % 3 != 0)) for i in range(12)]
  config = EStepConfig(cap=4)
  for seed in range(20):
    random.Random(seed).shuffle(rows)
    assert _samples(rows, config) == [1, 2, 4, 5]


def test_equal_texts_count_once_before_the_cap():
  rows = [
    _row(i, text=text) for i, text in enumerate(['a', 'a ', 'b', 'a', 'c'])
  ]
  assert _samples(rows, EStepConfig(cap=3)) == [0, 2, 4]
  assert _samples(rows, EStepConfig(cap=3, distinct='off')) == [0, 1, 2]


def test_a_cap_of_zero_keeps_all():
  rows = [_row(i) for i in range(40)]
  assert len(keep(rows, EStepConfig(cap=0))) == 40


def test_random_keys_differ_by_problem_and_by_purpose():
  keys = {
    random_key(purpose, problem)
    for purpose, problem in itertools.product(
      [f'iteration {i}' for i in range(20)], [f'p/{i}' for i in range(100)]
    )
  }
  assert len(keys) == 2000


@pytest.mark.parametrize(('field', 'value'), [('num_samples', 0), ('cap', -1)])
def test_a_wrong_field_is_named(field: str, value: int):
  with pytest.raises(ValueError, match=f'estep.{field}'):
    EStepConfig(**{field: value})
