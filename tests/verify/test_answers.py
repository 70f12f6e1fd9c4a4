"""Answers vote by the verifier's own equality."""

import itertools
import random

import pytest

from rest.config import EStepConfig
from rest.e_step.choose import choose
from rest.types import Completion, Graded, Verdict
from rest.verify import Pool, VerifyConfig
from rest.verify.answers import alike, reader, vote
from rest.verify.math import is_equivalent


@pytest.fixture(scope='module')
def pool():
  with Pool(VerifyConfig(nice=0), ('math', 'exact')) as pool:
    yield pool


def _rows(answers: list[str], right: str, verifier: str = 'math-1'):
  return [
    Graded(
      'p',
      i,
      'q',
      Completion(f'The answer is {answer}.', (1,), (-1.0,), True),
      Verdict(float(is_equivalent(right, answer)), '', verifier),
    )
    for i, answer in enumerate(answers)
  ]


def test_spellings_of_an_answer_are_one_answer(pool):
  texts = [
    r'So $\boxed{\frac{1}{2}}$',
    'The answer is 1/2.',
    '#### 0.5',
    '#### 0.50',
    'We do not know.\n\nWe give up.',
    '#### 2',
    '#### 2.00',
    r'\boxed{x^2 + 2x + 1}',
    r'\boxed{(x+1)^2}',
  ]
  first, *_ = found = alike(texts, 'math', pool)
  assert found[:4] == [first] * 4
  assert found[4] == ''
  assert found[5] == found[6] != found[7] == found[8]
  assert len({first, found[5], found[7], ''}) == 4


def test_answers_are_alike_in_any_order(pool):
  texts = ['#### 5', '#### 5 cm', '#### 5 m', '#### 5 cm', '#### 7']
  found = set()
  for order in itertools.permutations(range(5)):
    answers = alike([texts[i] for i in order], 'math', pool)
    named = dict(zip(order, answers, strict=True))
    found.add(tuple(named[i] for i in range(5)))
  assert found == {('5 cm', '5 cm', '5 m', '5 cm', '7')}


def test_words_vote_by_the_equality_of_their_verifier(pool):
  texts = ['So the answer is (B).', 'So the answer is (B) 3.', '(A)', '(B)']
  assert len(set(alike(texts, 'exact', pool))) == 2
  texts = ['the answer is Yes.', 'the answer is yes', 'no', '5', '5.0']
  assert len(set(alike(texts, 'exact', pool))) == 4


def test_plain_numbers_are_equal_exactly_where_the_verifier_says_so(pool):
  rng = random.Random(0)
  numbers = ['0', '-0', '00', '7', '07', '7.0', '-7', '0.1', '0.10', '1000000']
  numbers += ['0.333333', '0.33', '123456789012', '123456789012.000001']
  numbers += [f'{rng.uniform(-3, 3):.{rng.randint(1, 2)}f}' for _ in range(20)]
  for pair in itertools.combinations(numbers, 2):
    one, other = alike(pair, 'math', pool)
    assert (one == other) == is_equivalent(*pair), pair


def test_a_vote_counts_answers_not_spellings(pool):
  rows = _rows([r'\frac{1}{2}', '1/2', '0.5', '2', '2'], right='0.5')
  assert vote(rows, pool) == 1.0
  config = EStepConfig(weight='majority')
  choices = choose(rows, config, reader(rows, pool))
  assert [choice.kept for choice in choices] == [True] * 3 + [False] * 2
  assert vote(_rows(['1/2', '0.5', '2'], right='2'), pool) == 0.0


def test_without_a_verdict_there_is_no_vote(pool):
  unknown = Verdict(None, '', 'math-1')
  rows = _rows(['1', '1', '2'], right='2')
  rows = [
    Graded(r.problem_id, r.sample, r.prompt, r.completion, unknown)
    if r.sample < 2
    else r
    for r in rows
  ]
  assert vote(rows, pool) == 1.0
  assert vote(rows[:2], pool) is None


def test_programs_have_no_answers(pool):
  assert reader(_rows(['1'], '1', verifier='program-1'), pool) is None


def test_what_keeps_the_verifier_busy_is_compared_once():
  texts = [rf'\boxed{{{n}^x + x^{n} - y}}' for n in (3, 4, 5)]
  with Pool(VerifyConfig(workers=1, nice=0), ('math',)) as pool:
    pool._config = VerifyConfig(timeout=1e-6)  # From now on, all are late.
    assert len(set(alike(texts, 'math', pool))) == 3
    assert pool.stats.unknown == 1  # Not each against each.
