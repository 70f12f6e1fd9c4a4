"""Countdown: what is asked, and who is right."""

import itertools
import random
import re
from fractions import Fraction

import pytest

from rest import tasks
from rest.config import TaskConfig
from rest.tasks import countdown, leaks
from rest.tasks.arithmetic.situations import Dice
from rest.types import Problem
from rest.verify import Pool, VerifyConfig, make_request

TASK = tasks.make(TaskConfig('countdown'))
SPLITS = {split: TASK.problems(split) for split in tasks.SPLITS}


def numbers(problem: Problem) -> tuple[int, ...]:
  *given, _ = map(int, re.findall(r'\d+', problem.question))
  return tuple(sorted(given))


def test_no_two_splits_have_the_same_numbers():
  sizes = {split: len(problems) for split, problems in SPLITS.items()}
  assert sizes == {'train': 4000, 'validation': 300, 'test': 1000}
  given = {s: {numbers(p) for p in problems} for s, problems in SPLITS.items()}
  for one, other in itertools.combinations(given.values(), 2):
    assert not one & other
  for problems in SPLITS.values():
    assert len({problem.question for problem in problems}) == len(problems)
    assert {int(p.level) for p in problems} == {3, 4, 5}
    assert all(int(p.level) == len(numbers(p)) for p in problems)
  assert leaks.find(TASK) == []


def test_every_problem_has_a_solution_that_is_right():
  harder = tasks.make(TaskConfig('countdown', split='harder', num_validation=0))
  for problem in (*itertools.chain(*SPLITS.values()), *harder.problems('test')):
    assert problem.solution is not None
    assert countdown.reward(problem, problem.solution) == 1.0


def test_problems_are_the_same_every_time():
  assert tasks.digest(TASK).startswith('9ddfa1efcf571d11'), tasks.digest(TASK)


@pytest.mark.parametrize(
  ('text', 'expected'),
  [
    ('#### (25 - 3) * 2', 1.0),
    ('#### 2*(25-3) = 44', 1.0),
    ('25 - 3 = 22\n22 * 2 = 44\n#### 2 \u00d7 (25 - 3)', 1.0),
    ('#### 44\n#### (25 - 3) * 2', 1.0),
    ('#### (25 - 3) * 2\n#### 44', 0.0),  # The last counts.
    ('#### 25 - 3 * 2', 0.0),
    ('#### 22 * 2', 0.0),  # A number that was not given.
    ('#### 25 + 25 - 3 * 2', 0.0),  # Twice.
    ('#### 44', 0.0),
    ('(25 - 3) * 2', 0.0),
    ('#### ', 0.0),
    ('', 0.0),
    ('#### (25 - 3) * 2)', 0.0),
    ('#### 2 ** 25 ** 3', 0.0),
    ('#### 25 // 3 * 2', 0.0),
    ('#### -25 + 3 * 2', 0.0),
    ('#### 25 / (3 - 3) * 2', 0.0),
    ('#### __import__("os") * 2', 0.0),
    ('#### ' + '(' * 99 + '1' + ')' * 99, 0.0),
    ('#### ' + '1+' * 10**6, 0.0),
    ('#### ' + '9' * 199, 0.0),
    ('#### 2 3 25', 0.0),
  ],
)
def test_an_expression_uses_each_number_once_and_makes_the_target(
  text, expected
):
  problem = Problem('a', 'Use 3, 25, 2 to make 44.')
  assert countdown.reward(problem, text) == expected


def test_expressions_have_the_value_that_python_gives_them():
  draw = random.Random(0)
  for _ in range(300):
    given = [draw.randint(1, 9) for _ in range(4)]
    left = [str(number) for number in given]
    while len(left) > 1:
      draw.shuffle(left)
      left.append(f'({left.pop()} {draw.choice("+-*")} {left.pop()})')
    used, value = countdown.evaluate(left[0])
    assert (sorted(used), value) == (sorted(given), eval(left[0]))
  assert countdown.evaluate('1 / 3 + 5') == ([1, 3, 5], Fraction(16, 3))


def test_play_writes_an_equation_a_step():
  steps, expression, result = countdown.play(Dice(3), [4, 7, 9, 2])
  assert len(steps) == 3
  for step in steps:
    left, right = step.split(' = ')
    assert countdown.evaluate(left)[1] == int(right)
  assert countdown.evaluate(expression)[1] == result
  assert steps[-1].endswith(f' = {result}')


def test_its_verdicts_come_from_the_workers():
  problem = SPLITS['test'][0]
  with Pool(VerifyConfig(workers=1), (TASK.verifier,)) as pool:
    requests = [
      make_request(TASK, problem, text) for text in (problem.solution, '#### 1')
    ]
    verdicts = [pool.submit(request).result() for request in requests]
  assert [verdict.reward for verdict in verdicts] == [1.0, 0.0]
