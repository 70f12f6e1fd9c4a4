"""Packing loses nothing, mixes nothing, repeats little and wastes little."""

import itertools

import numpy as np
import pytest

from rest.m_step.batches import draw_batches
from rest.m_step.packing import Batch, Example, Shape, _place, check, pack, plan

PREFIX = (7, 7, 8)


def _examples(
  count: int, problems: int = 9, prefix: tuple[int, ...] = PREFIX
) -> list[Example]:
  random = np.random.default_rng(0)

  def ids(most: int) -> tuple[int, ...]:
    return tuple(random.integers(1, 99, random.integers(1, most)).tolist())

  questions = [ids(20) for _ in range(problems)]
  return [
    Example(
      questions[random.integers(problems)],
      ids(30),
      float(random.integers(1, 4)),
      prefix,
    )
    for _ in range(count)
  ]


def _paths(batch: Batch) -> list[tuple[tuple[int, ...], ...]]:
  """Returns prompt, completion and weights of each solution in some rows.

  What a token sees, in order, is its path; a solution is where weights are.
  """
  found = []
  for tokens, targets, ends, positions, weights in zip(*batch, strict=True):
    begins = np.diff(ends * (weights > 0), prepend=0) != 0
    starts = begins & (weights > 0)
    for start in np.nonzero(starts)[0]:
      last = ends[start] - 1
      path = np.nonzero((ends > last) & (np.arange(len(ends)) <= last))[0]
      assert positions[path].tolist() == list(range(len(path)))
      prompt = tokens[path[path <= start]]
      assert not weights[path[path < start]].any()
      assert (tokens[start + 1 : last + 1] == targets[start:last]).all()
      found.append(
        tuple(
          tuple(x.tolist())
          for x in (
            prompt,
            targets[start : last + 1],
            weights[start : last + 1],
          )
        )
      )
  return found


@pytest.mark.parametrize('share', [True, False])
@pytest.mark.parametrize('prefix', [PREFIX, ()])
@pytest.mark.parametrize(('row_length', 'rows'), [(64, 3), (200, 1), (999, 4)])
def test_every_solution_is_packed_once_and_whole(
  share, prefix, row_length, rows
):
  examples = _examples(60, prefix=prefix)
  batches = draw_batches(examples, 16, 0, 0)
  shape = plan(examples, batches, row_length, rows, 2, share)
  assert shape.rows % 2 == 0 and shape.length <= row_length
  found = []
  for batch in batches:
    packed = pack(examples, batch, shape, share)
    assert packed.tokens_BT.shape == (shape.rows, shape.length)
    found += _paths(packed)
  assert sorted(found) == sorted(
    (e.prefix + e.question, e.completion, (e.weight,) * len(e.completion))
    for e in examples
  )


def test_padding_is_empty_and_weighs_nothing():
  batch = pack(_examples(7), range(7), Shape(8, 64, 0), True)
  padding = batch.ends_BT == 0
  assert padding.any()
  for array in batch:
    assert not array[padding].any()


def test_a_prefix_stands_once_a_row_and_a_question_once_a_problem():
  examples = [
    Example((problem, 2, 3), (4, sample, 5), prefix=(9,) * 50)
    for problem, sample in itertools.product(range(1, 6), range(1, 5))
  ]
  shape = plan(examples, [range(20)], 512, 4, 1, True)
  assert shape.rows == 1
  assert shape.used == 50 + 5 * 2 + 20 * 3
  assert plan(examples, [range(20)], 512, 4, 1, False).used == 20 * 55
  # Of two devices' rows one is empty, and has no prefix either.
  assert plan(examples, [[0]], 512, 4, 2, True).used == 50 + 2 + 3


def test_rows_are_few_and_then_short():
  examples = [Example((1, 2), (3,) * 49, prefix=(4,) * 10)] * 40
  assert plan(examples, [range(40)], 8192, 1, 1, True).rows == 1
  shape = plan(examples, [range(40)], 1024, 1, 1, True)
  # Of 1 + 40 x 49 positions and two prefixes, the half; a multiple of 64.
  assert (shape.rows, shape.length) == (2, 1024)
  # Seven fit into 384, so six rows would do; in two parts on two devices, 8.
  shape = plan(examples, [range(40)], 384, 2, 2, True)
  assert (shape.rows, shape.length) == (8, 256)
  assert plan(examples, [range(9)], 8192, 1, 1, True).length == 512


def test_padding_of_gsm8k_like_batches_is_below_twelve_percent():
  random = np.random.default_rng(0)
  examples = [
    Example((problem,) * 80, (1,) * int(length), prefix=(2,) * 700)
    for problem in range(500)
    for length in np.clip(random.lognormal(np.log(110), 0.5, 4), 16, 512)
  ]
  batches = draw_batches(examples, 32, 0, 0)
  shape = plan(examples, batches, 8192, 2, 1, True)
  assert shape.padding < 0.12
  assert sum(map(len, batches)) * 890 > 5 * len(batches) * shape.length


@pytest.mark.parametrize(
  ('example', 'message'),
  [
    (Example((), (1,)), 'example 1 must have a question and a completion'),
    (Example((1,), ()), 'example 1 must have a question and a completion'),
    (Example((1,), (1,) * 9), 'example 1 takes 9 positions but row_length is'),
    (Example((1,), (1,), 0.0), 'example 1 must have a positive weight'),
    (Example((1,), (1,), float('nan')), 'example 1 must have a positive'),
    (Example((1,), (1,), 1.0, (3,)), 'example 1 must have the prefix of'),
  ],
)
def test_bad_examples_are_refused_by_number(example: Example, message: str):
  with pytest.raises(ValueError, match=message):
    check([Example((1,), (2,)), example], 8)


def test_no_examples_are_refused():
  with pytest.raises(ValueError, match='no examples'):
    check([], 8)


def test_an_example_of_exactly_a_row_fits():
  examples = [Example((5, 6), (7, 8, 9))]
  check(examples, 4)
  batch = pack(examples, [0], plan(examples, [[0]], 4, 1, 1, True), True)
  assert batch.tokens_BT.tolist() == [[5, 6, 7, 8]]
  assert batch.targets_BT.tolist() == [[0, 7, 8, 9]]
  assert batch.weights_BT.tolist() == [[0, 1, 1, 1]]


def test_the_row_that_the_module_draws():
  examples = [
    Example((5, 6), (8, 4, 9), prefix=(1, 2)),
    Example((3,), (4, 9), prefix=(1, 2)),
    Example((5, 6), (7, 9), prefix=(1, 2)),
  ]
  batch = pack(examples, [1, 2, 0], Shape(1, 11, 0), True)
  assert [x.tolist() for x in batch] == [
    [[1, 2, 5, 6, 8, 4, 6, 7, 3, 4, 0]],
    [[0, 0, 0, 8, 4, 9, 7, 9, 4, 9, 0]],
    [[10, 10, 8, 6, 6, 6, 8, 8, 10, 10, 0]],
    [[0, 1, 2, 3, 4, 5, 3, 4, 2, 3, 0]],
    [[0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 0]],
  ]


def test_a_question_is_repeated_where_its_solutions_do_not_fit():
  """As told in `_place`."""
  long, short = (1, 1, 1, 1), (2, 2)
  examples = [
    *(Example(long, (3,) * n, prefix=(9, 9)) for n in (5, 4, 2)),
    Example(short, (3,) * 4, prefix=(9, 9)),
  ]
  assert _place(examples, range(4), 2, 12, True) is None
  # Of the first row 2 + 3 + 5 + 4 positions, of the second 2 + 3 + 2 + 1 + 4.
  expected = [[[0, 1]], [[2], [3]]], 14 + 12
  assert _place(examples, range(4), 2, 14, True) == expected
