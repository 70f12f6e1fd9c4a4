"""`countdown`: reach a number from given ones with + - * and /, on the fly.

Every given number is used exactly once. A problem has many solutions, so that a
function judges, not a comparison. Levels are how many numbers are given, 3 to
5; 4,000 problems to train, 300 to validate, 1,000 to test, and no two splits
have the same numbers. 'harder' gives 6 numbers, 300 times, and only tests.
"""

import ast
import functools
import hashlib
import operator
import re
from collections.abc import Sequence
from fractions import Fraction

from rest.config import TaskConfig
from rest.tasks.arithmetic.situations import Dice
from rest.tasks.problem_set import SPLITS, ProblemSet
from rest.types import Problem

_SIZES = {'train': 4000, 'validation': 300, 'test': 1000, 'harder': 300}
_LARGEST = {'given': 25, 'result': 500, 'target': 100}
_CLAIM = re.compile(r'####([^\n=]*)')
_EXPRESSION = re.compile(r'[\d ()+*/-]{1,200}')
_OPERATIONS = {
  ast.Add: operator.add,
  ast.Sub: operator.sub,
  ast.Mult: operator.mul,
  ast.Div: operator.truediv,
}


class Countdown(ProblemSet):
  """Asked in a sentence; solved in steps, an equation a line."""

  name = 'countdown'
  verifier = f'{__file__}:reward'
  splits = SPLITS
  prompts = ('zero_shot',)
  variants = ('standard', 'harder')

  def __init__(self, config: TaskConfig):
    super().__init__(config)
    if self.variant == 'harder':
      self.splits = ('test',)

  def read(self, split: str) -> tuple[Problem, ...]:
    return problems('harder' if self.variant == 'harder' else split)

  def question(self, problem: Problem) -> str:
    return f'{problem.question}\n'


def reward(problem: Problem, text: str) -> float:
  """Returns 1 where the given numbers, each used once, make the target.

  What is judged stands behind the last '####', before '=' if that is there: of
  '25 - 3 = 22', '22 * 2 = 44' and '#### (25 - 3) * 2' the last.
  """
  *given, target = map(int, re.findall(r'\d+', problem.question))
  claims = _CLAIM.findall(text)
  try:
    used, value = evaluate(claims[-1] if claims else '')
  except ValueError:
    return 0.0
  return float(sorted(used) == sorted(given) and value == target)


def evaluate(expression: str) -> tuple[list[int], Fraction]:
  """Returns the numbers of an expression, in order, and its exact value.

  Example: '(7 - 3) * 2 / 8' gives [7, 3, 2, 8] and 1.

  Raises:
    ValueError: It is none, or divides by zero.
  """
  used: list[int] = []

  def value(node: ast.expr) -> Fraction:
    match node:
      case ast.Constant(value=int(number)):
        used.append(number)
        return Fraction(number)
      case ast.BinOp(left, kind, right) if type(kind) in _OPERATIONS:
        return _OPERATIONS[type(kind)](value(left), value(right))
    raise ValueError(f'{expression!r} has more than + - * and /.')

  text = expression.strip().replace('\u00d7', '*').replace('\u00f7', '/')
  if not _EXPRESSION.fullmatch(text):
    raise ValueError(f'{expression!r:.60} is no expression.')
  try:
    return used, value(ast.parse(text, mode='eval').body)
  except (SyntaxError, MemoryError, ZeroDivisionError) as error:
    raise ValueError(f'{expression!r}: {error}') from error


@functools.cache
def problems(split: str) -> tuple[Problem, ...]:
  """Returns all problems of a split, levels in turn, the same every time."""
  dice = Dice('countdown', split)
  sizes = (6,) if split == 'harder' else (3, 4, 5)
  made: dict[str, Problem] = {}
  while len(made) < _SIZES[split]:
    size = sizes[len(made) % len(sizes)]
    given = [dice.number(1, _LARGEST['given']) for _ in range(size)]
    if split not in (_split_of(given), 'harder'):
      continue
    steps, expression, target = play(dice, given)
    if not 1 < target <= _LARGEST['target']:
      continue
    question = f'Use {", ".join(map(str, given))} to make {target}.'
    made.setdefault(
      question,
      Problem(
        id=f'countdown/{split}/{len(made)}',
        question=question,
        answer=expression,
        solution='\n'.join([*steps, f'#### {expression}']),
        level=str(size),
      ),
    )
  return tuple(made.values())


def play(dice: Dice, given: Sequence[int]) -> tuple[list[str], str, int]:
  """Returns the steps of random play, the expression, and what it comes to.

  Only what is a whole number above zero, and not too large, is written down.
  Example: of 3, 25 and 2 it may be ['25 - 3 = 22', '22 * 2 = 44'], '(25 - 3) *
  2' and 44.

  Invariant: `left` has each number that may be used yet, with its expression,
  and `steps` one equation for each that it has fewer than given.
  """
  left = [(number, str(number)) for number in given]
  steps: list[str] = []
  while len(left) > 1:
    first, second = dice.pick(left), dice.pick(left)
    sign = dice.pick('+-*/')
    if first is second or (sign == '/' and first[0] % second[0]):
      continue
    result = int(evaluate(f'{first[0]} {sign} {second[0]}')[1])
    if not 0 < result <= _LARGEST['result']:
      continue
    left.remove(first)
    left.remove(second)
    steps.append(f'{first[0]} {sign} {second[0]} = {result}')
    left.append((result, f'({first[1]} {sign} {second[1]})'))
  return steps, left[0][1][1:-1], left[0][0]


def _split_of(given: Sequence[int]) -> str:
  digest = hashlib.sha256(repr(sorted(given)).encode()).digest()
  if digest[0] < 192:
    return 'train'
  return 'validation' if digest[0] < 208 else 'test'
