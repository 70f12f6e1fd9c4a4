"""Every sample has one fate, and each is told by what happened to it."""

import random
from collections.abc import Sequence

from rest.config import EStepConfig
from rest.e_step.choose import choose
from rest.e_step.summary import (
  DUPLICATE,
  INCORRECT,
  KEPT,
  OUTVOTED,
  OVER_CAP,
  UNFINISHED,
  UNKNOWN,
  Tally,
  describe,
)
from rest.types import Completion, Graded, Verdict


def _row(
  sample: int, text: str, reward: float | None = 1.0, finished: bool = True
) -> Graded:
  completion = Completion(text, (1,), (-1.0,), 'token' if finished else 'limit')
  return Graded('p', sample, 'q', completion, Verdict(reward, '', 'math-1'))


def _first_letters(texts: Sequence[str]) -> list[str]:
  return [text[:1] for text in texts]


def _fates(rows: list[Graded], **config) -> list[str]:
  choices = choose(rows, EStepConfig(**config), _first_letters)
  assert [choice.row.sample for choice in choices] == list(range(len(rows)))
  return [choice.fate for choice in choices]


def test_every_sample_has_one_fate_in_any_order_of_arrival():
  rows = [
    _row(0, 'a'),
    _row(1, 'a '),
    _row(2, 'b', reward=0.0),
    _row(3, 'c', finished=False),
    _row(4, 'd'),
    _row(5, 'e'),
    _row(6, 'e'),
    _row(7, 'f', reward=None),
  ]
  first = [KEPT, DUPLICATE, INCORRECT, UNFINISHED, KEPT, OVER_CAP]
  for seed in range(5):
    random.Random(seed).shuffle(rows)
    assert _fates(rows, cap=2) == [*first, DUPLICATE, UNKNOWN]
  assert _fates(rows, cap=2, distinct='off')[4:] == [OVER_CAP] * 3 + [UNKNOWN]


def test_a_right_answer_that_lost_the_vote_is_no_duplicate():
  texts = ['1', '1', '2a', '2b', '2c', '2d']
  rows = [_row(i, t, reward=float(t == '1')) for i, t in enumerate(texts)]
  expected = [OUTVOTED, OUTVOTED, KEPT, KEPT, INCORRECT, INCORRECT]
  assert _fates(rows, cap=2, weight='majority') == expected
  counts = Tally()
  config = EStepConfig(cap=2, weight='majority')
  counts.add(choose(rows, config, _first_letters))
  text = describe(counts.summary(), 2)
  assert '2 right but not the commonest answer' in text


def test_a_vote_tells_right_answers_that_lost_from_those_that_won():
  # The verifier takes both spellings for right, but not one for the other.
  rows = [_row(i, t) for i, t in enumerate(['1a', '2', '1a', '1b', '1c'])]
  expected = [KEPT, OUTVOTED, DUPLICATE, KEPT, OVER_CAP]
  assert _fates(rows, cap=2, weight='majority') == expected
  # The vote's winners are all cut off: nothing is kept.
  rows = [_row(0, '2'), *(_row(i, '1', finished=False) for i in (1, 2))]
  expected = [OUTVOTED, UNFINISHED, UNFINISHED]
  assert _fates(rows, weight='majority') == expected


def test_an_e_step_is_told_in_words():
  counts = Tally()
  rows = [_row(0, 'a'), _row(1, 'a'), _row(2, 'b', reward=0.0)]
  counts.add(choose(rows, EStepConfig()))
  text = describe(counts.summary(), 10)
  assert text.startswith('kept 1 of 3 samples (dropped: 1 wrong, 1 right but')
  assert '1 of 1 problems have a solution; ' in text
  assert text.endswith(
    'ended by an end token 100.0%, by a stop string 0.0%, cut off at the '
    'length limit 0.0%; without a readable answer 0.0%'
  )
