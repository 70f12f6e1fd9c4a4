"""Packing loses nothing, mixes nothing, and wastes little."""

import numpy as np
import pytest

from rest.m_step.packing import Example, _fill_rows, most_segments, pack


def _examples(count: int, seed: int = 0) -> list[Example]:
  random = np.random.default_rng(seed)
  return [
    Example(
      tuple(random.integers(1, 99, random.integers(1, 20)).tolist()),
      tuple(random.integers(1, 99, random.integers(1, 30)).tolist()),
      float(random.integers(1, 4)),
    )
    for _ in range(count)
  ]


def _unpack(batches) -> list[Example]:
  """Returns the sequences of packed rows, each as it was."""
  found = []
  for batch in batches:
    for row in range(batch.tokens_BT.shape[0]):
      segments_T = batch.segments_BT[row]
      for segment in range(1, segments_T.max() + 1):
        (where,) = np.nonzero(segments_T == segment)
        assert (np.diff(where) == 1).all()
        assert (batch.positions_BT[row, where] == np.arange(len(where))).all()
        tokens = batch.tokens_BT[row, where].tolist()
        tokens.append(int(batch.targets_BT[row, where[-1]]))
        assert tokens[1:] == batch.targets_BT[row, where].tolist()
        weights = batch.weights_BT[row, where]
        prompt = int((weights == 0).sum()) + 1
        assert (weights[prompt - 1 :] == weights[-1]).all()
        found.append(
          Example(
            tuple(tokens[:prompt]), tuple(tokens[prompt:]), float(weights[-1])
          )
        )
  return found


@pytest.mark.parametrize('rows', [1, 3, 8])
def test_every_example_is_packed_once_and_whole(rows: int):
  examples = _examples(200)
  packed = pack(examples, 64, rows, seed=3)
  assert sorted(_unpack(packed), key=repr) == sorted(examples, key=repr)


def test_padding_is_empty_and_weighs_nothing():
  batch = pack(_examples(7), 64, 8)[0]
  padding = batch.segments_BT == 0
  assert padding.any()
  assert not batch.weights_BT[padding].any()
  assert not batch.tokens_BT[padding].any()


def test_the_order_is_a_function_of_seed_and_epoch():
  examples = _examples(100)

  def order(seed: int, epoch: int) -> list[list[int]]:
    packed = pack(examples, 64, 4, seed, epoch)
    return [packed.members(i) for i in range(len(packed))]

  assert order(1, 2) == order(1, 2)
  assert order(1, 2) != order(1, 3)
  assert order(1, 2) != order(2, 2)
  assert len({len(order(1, epoch)) for epoch in range(5)}) == 1


def test_members_name_the_examples_of_a_batch():
  examples = _examples(100)
  packed = pack(examples, 64, 4)
  for i, batch in enumerate(packed):
    named = sorted((examples[m] for m in packed.members(i)), key=repr)
    assert sorted(_unpack([batch]), key=repr) == named


@pytest.mark.parametrize(
  ('count', 'prompt', 'median', 'row_length'),
  [
    (4000, 300, 160, 2048),
    (500, 300, 160, 2048),
    (3000, 60, 60, 512),
    (3000, 20, 60, 256),
    (30_000, 80, 160, 4096),
  ],
)
def test_padding_is_below_three_percent(
  count: int, prompt: int, median: int, row_length: int
):
  random = np.random.default_rng(0)
  lengths = random.lognormal(np.log(median), 0.6, count)
  lengths = np.clip(lengths, 16, row_length // 4).astype(int)
  examples = [Example((1,) * prompt, (1,) * n) for n in lengths.tolist()]
  assert pack(examples, row_length, 16).padding < 0.03


def test_batches_of_an_epoch_hold_almost_equally_many_rows():
  packed = pack(_examples(90), 64, 8)
  rows = [int((batch.segments_BT[:, 0] > 0).sum()) for batch in packed]
  assert len(rows) > 2
  assert max(rows) - min(rows) <= 1


def test_a_row_holds_no_more_segments_than_promised():
  packed = pack([Example((1,), (2,))] * 500, 1024, 4)
  most = max(int(batch.segments_BT.max()) for batch in packed)
  assert most == most_segments(1024) == 16


@pytest.mark.parametrize(
  ('example', 'message'),
  [
    (Example((), (1,)), 'example 1 must have a prompt and a completion'),
    (Example((1,), ()), 'example 1 must have a prompt and a completion'),
    (Example((1,), (1,) * 9), 'example 1 takes 9 positions but row_length is'),
    (Example((1,), (1,), 0.0), 'example 1 must have a positive weight'),
    (Example((1,), (1,), float('nan')), 'example 1 must have a positive'),
  ],
)
def test_bad_examples_are_refused_by_number(example: Example, message: str):
  with pytest.raises(ValueError, match=message):
    pack([Example((1,), (2,)), example], 8, 2)


def test_no_examples_are_refused():
  with pytest.raises(ValueError, match='no examples'):
    pack([], 8, 2)


def test_an_example_of_exactly_a_row_fits():
  batch = pack([Example((5, 6), (7, 8, 9))], 4, 1)[0]
  assert batch.tokens_BT.tolist() == [[5, 6, 7, 8]]
  assert batch.targets_BT.tolist() == [[6, 7, 8, 9]]
  assert batch.weights_BT.tolist() == [[0, 1, 1, 1]]


def test_the_row_that_the_module_draws():
  batch = pack([Example((3,), (4, 2)), Example((5, 6), (7, 8, 9))], 8, 1)[0]
  assert batch.tokens_BT.tolist() == [[5, 6, 7, 8, 3, 4, 0, 0]]
  assert batch.targets_BT.tolist() == [[6, 7, 8, 9, 4, 2, 0, 0]]
  assert batch.segments_BT.tolist() == [[1, 1, 1, 1, 2, 2, 0, 0]]
  assert batch.positions_BT.tolist() == [[0, 1, 2, 3, 0, 1, 0, 0]]
  assert batch.weights_BT.tolist() == [[0, 1, 1, 1, 1, 1, 0, 0]]


def test_two_that_fill_a_row_come_before_a_longer_one():
  assert _fill_rows([7, 6, 4, 2], range(4), 10) == [[1, 2], [0, 3]]
