"""Word problems about everyday situations, and authors who solve them.

A story is an opening, some events and a closing question, all about one running
amount. Each kind of event has equations, and some have a trap: the shorter
equations of somebody who reads too fast. Every draw comes from `Dice`, so the
same seed gives the same bytes on every Python.
"""

import functools
import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import TypeVar

_Item = TypeVar('_Item')

# Steps of a solution at each level.
LEVELS = {'1': (2,), '2': (3,), '3': (4,), '4': (5, 6), '5': (7, 8)}
# Longer than any solution in the corpus: to test transfer.
_BEYOND = {'6': (9, 10)}

# Largest amount in a right solution: longer sums teach a tiny model nothing.
_LARGEST = 999


@dataclass(frozen=True, slots=True)
class Kind:
  """One kind of event.

  Attributes:
    role: Where in a story it stands: 'opening', 'event' or 'closing'.
    right: Equations over the amount so far `v`, the event's numbers `a` and
      `b`, and the previous result `p`; the last result is the new amount.
    hasty: The trap: what a hasty author writes instead, or None.
  """

  role: str
  right: tuple[str, ...]
  hasty: tuple[str, ...] | None = None


KINDS = {
  'have': Kind('opening', ()),
  'groups': Kind('opening', ('a * b',)),
  'both': Kind('opening', ('a + b',)),
  'add': Kind('event', ('v + a',)),
  'sub': Kind('event', ('v - a',)),
  'half': Kind('event', ('v / 2',)),
  'share': Kind('event', ('v / a',)),
  'fraction': Kind('event', ('v / a',)),
  'times': Kind('event', ('v * a',), ('v + a',)),
  'add_groups': Kind('event', ('a * b', 'v + p'), ('v + b',)),
  'sub_groups': Kind('event', ('a * b', 'v - p'), ('v - b',)),
  'part': Kind('event', ('v / a', 'v - p'), ('v / a',)),
  'more': Kind('event', ('v + a', 'v + p'), ('v + a',)),
  'fewer': Kind('event', ('v - a', 'v + p'), ('v - a',)),
  'times_more': Kind('event', ('v * a', 'v + p'), ('v * a',)),
  'ask': Kind('closing', ()),
  'goal': Kind('closing', ('a - v',), ()),
  'change': Kind('closing', ('a - v',), ()),
  'price': Kind('closing', ('v * a',), ()),
  'each': Kind('closing', ('v / a',), ()),
}

# People by split, and the pronouns of their group.
_PEOPLE = {
  'train': (
    ('Adam', 'Ben', 'Carl', 'Dan', 'Eric', 'Frank', 'Gary', 'Hugo'),
    ('Anna', 'Beth', 'Clara', 'Dora', 'Emma', 'Fay', 'Gina', 'Holly'),
  ),
  'validation': (('Ivan', 'Jack'), ('Iris', 'Jane')),
  'test': (('Karl', 'Leo', 'Mark', 'Nick'), ('Kate', 'Lena', 'Mary', 'Nora')),
}
_PRONOUNS = (('he', 'his', 'him'), ('she', 'her', 'her'))

_PARTS = {3: 'a third', 4: 'a quarter', 5: 'a fifth'}

# How an author begins a line, the commonest first.
_ASIDE = ('That makes', 'This gives', 'First find')
_MAIN = ('Now it is', 'So we have', 'The new amount is')


class Dice:
  """Draws that are the same on every Python: only `random()` is promised."""

  def __init__(self, *seed: object):
    digest = hashlib.sha256(repr(seed).encode()).digest()
    self._random = random.Random(int.from_bytes(digest[:8], 'big')).random

  def chance(self, probability: float) -> bool:
    return self._random() < probability

  def number(self, low: int, high: int) -> int:
    """Returns an integer from low to high, both included."""
    return low + int(self._random() * (high - low + 1))

  def pick(self, items: Sequence[_Item]) -> _Item:
    return items[int(self._random() * len(items))]

  def common(self, items: Sequence[_Item]) -> _Item:
    """Picks with odds of 1, 1/2, 1/4 ...: the first item most often."""
    index = 0
    while index < len(items) - 1 and self.chance(0.5):
      index += 1
    return items[index]


@dataclass(frozen=True, slots=True)
class Situation:
  """One block of situations.txt: things, and sentences with their kinds."""

  subject: str
  things: tuple[str, ...]
  sentences: tuple[tuple[str, str], ...]

  def of(self, role: str) -> list[tuple[str, str]]:
    return [s for s in self.sentences if KINDS[s[0]].role == role]


@dataclass(frozen=True, slots=True)
class Event:
  """One sentence of a story with its numbers."""

  kind: str
  sentence: str
  a: int
  b: int


@dataclass(frozen=True, slots=True)
class Story:
  """A problem before anybody has solved it."""

  subject: str
  level: str
  question: str
  events: tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class Step:
  """One line of a solution: `phrase left sign right = result.`"""

  phrase: str
  left: int
  sign: str
  right: int
  result: int

  def __str__(self) -> str:
    equation = f'{self.left} {self.sign} {self.right} = {self.result}'
    return f'{self.phrase} {equation}.'


@dataclass(frozen=True, slots=True)
class Author:
  """How reliably somebody solves problems; the default makes no mistakes.

  Attributes:
    trapped: Chance to fall into each trap.
    slip: Chance, in each step, of a wrong result.
    wrong_sign: Chance, in each step, of the wrong operation.
  """

  trapped: float = 0.0
  slip: float = 0.0
  wrong_sign: float = 0.0


@functools.cache
def situations() -> tuple[Situation, ...]:
  """Returns the situations of situations.txt, in order."""
  text = resources.files('rest.tasks.arithmetic').joinpath('situations.txt')
  blocks = text.read_text('utf-8').split('\n[')[1:]
  return tuple(_situation(block) for block in blocks)


def _situation(block: str) -> Situation:
  head, *lines = block.strip().split('\n')
  subject, things = head.split('] ')
  sentences = []
  for line in lines:
    kind, sentence = line.split(': ', 1)
    sentences.append((kind, sentence))
  return Situation(subject, tuple(things.split()), tuple(sentences))


def tell(dice: Dice, level: str, split: str) -> Story:
  """Returns a story of a split, or of all of them for ''.

  Splits share no person, no thing where a situation has several, and no
  sequence of sentences.
  """
  while True:
    situation = dice.pick(situations())
    plan = _plan(dice, situation, dice.pick((LEVELS | _BEYOND)[level]))
    if plan is None or (split and _split_of(plan) != split):
      continue
    events = _events(dice, plan)
    if events is not None:
      question = _question(dice, situation, events, split)
      return Story(situation.subject, level, question, events)


def solve(story: Story, author: Author, dice: Dice) -> list[Step]:
  """Returns the steps that an author writes; the last result is the answer.

  An author who arrives at an amount that cannot go on (negative, or with a
  remainder) stops there.
  """
  steps: list[Step] = []
  amount = story.events[0].a
  for event in story.events:
    kind = KINDS[event.kind]
    fallen = kind.hasty is not None and dice.chance(author.trapped)
    # A trap never leaves a solution without a line.
    recipe = kind.hasty if fallen and (kind.hasty or steps) else kind.right
    assert recipe is not None
    names = {'v': amount, 'a': event.a, 'b': event.b, '2': 2}
    for index, equation in enumerate(recipe):
      left, sign, right = equation.split(' ')
      phrase = dice.common(_MAIN if index == len(recipe) - 1 else _ASIDE)
      step = _step(dice, author, phrase, names[left], sign, names[right])
      if step is None:
        return steps
      steps.append(step)
      amount = names['p'] = step.result
  return steps


def _step(
  dice: Dice, author: Author, phrase: str, left: int, sign: str, right: int
) -> Step | None:
  result = _calculate(left, sign, right)
  if dice.chance(author.wrong_sign):
    other = {'+': '-', '-': '+', '*': '+', '/': '-'}[sign]
    wrong = _calculate(left, other, right)
    # Nobody would write down an amount below 1.
    if wrong is not None and wrong > 0:
      sign, result = other, wrong
  if result is None or result < 1:
    return None
  if dice.chance(author.slip):
    slips = (-10, -2, -1, 1, 2, 10)
    result += dice.pick([slip for slip in slips if result + slip > 0])
  return Step(phrase, left, sign, right, result)


def _calculate(left: int, sign: str, right: int) -> int | None:
  if sign == '/':
    return left // right if left % right == 0 else None
  return {'+': left + right, '-': left - right, '*': left * right}[sign]


def _plan(
  dice: Dice, situation: Situation, steps: int
) -> list[tuple[str, str]] | None:
  """Returns sentences that take exactly so many steps, each used once."""
  opening = dice.pick(situation.of('opening'))
  closing = dice.pick(situation.of('closing'))
  steps -= len(KINDS[opening[0]].right) + len(KINDS[closing[0]].right)
  plan = [opening]
  events = situation.of('event')
  while steps > 0 and events:
    event = dice.pick(events)
    events.remove(event)
    if len(KINDS[event[0]].right) <= steps:
      steps -= len(KINDS[event[0]].right)
      plan.append(event)
  if steps or len(plan) == 1:
    return None
  return [*plan, closing]


def _split_of(plan: list[tuple[str, str]]) -> str:
  digest = hashlib.sha256(repr(plan).encode()).digest()
  if digest[0] < 176:
    return 'train'
  return 'validation' if digest[0] < 200 else 'test'


def _events(
  dice: Dice, plan: list[tuple[str, str]]
) -> tuple[Event, ...] | None:
  """Draws numbers that keep every amount a whole number in range."""
  events: list[Event] = []
  amount = 0
  for kind, sentence in plan:
    numbers = _numbers(dice, kind, amount)
    if numbers is None:
      return None
    event = Event(kind, sentence, *numbers)
    results = _results(event, amount)
    if results is None:
      return None
    amount = results[-1] if results else amount or event.a
    events.append(event)
  return tuple(events)


def _results(event: Event, amount: int) -> list[int] | None:
  """Returns the results of the right equations, or None if out of range."""
  names = {'v': amount, 'a': event.a, 'b': event.b, '2': 2}
  results: list[int] = []
  for equation in KINDS[event.kind].right:
    left, sign, right = equation.split(' ')
    result = _calculate(names[left], sign, names[right])
    if result is None or not 1 <= result <= _LARGEST:
      return None
    names['p'] = result
    results.append(result)
  return results


def _numbers(dice: Dice, kind: str, amount: int) -> tuple[int, int] | None:
  """Draws the numbers of one event, or None where none would fit."""
  match kind:
    case 'have':
      return dice.number(5, 60), 0
    case 'both':
      return dice.number(5, 40), dice.number(5, 40)
    case 'groups' | 'add_groups' | 'sub_groups':
      return dice.number(2, 9), dice.number(3, 12)
    case 'add' | 'more':
      return dice.number(3, 50), 0
    case 'sub' | 'fewer':
      # Subtrahends below the amount; tiny amounts are left alone.
      return (dice.number(2, min(amount - 2, 50)), 0) if amount > 4 else None
    case 'times' | 'times_more':
      return (dice.number(2, 4), 0) if 4 < amount < 200 else None
    case 'part' | 'fraction' | 'share' | 'each':
      low, high = (3, 5) if kind in ('part', 'fraction') else (2, 9)
      fits = [a for a in range(low, high + 1) if amount % a == 0 and amount > a]
      return (dice.pick(fits), 0) if fits else None
    case 'goal':
      return amount + dice.number(3, 60), 0
    case 'change':
      return (amount // 50 + 1) * 50, 0
    case 'price':
      return dice.number(2, 9), 0
    case 'half' | 'ask':
      return 0, 0
  raise ValueError(f'situations.txt has an unknown kind {kind!r}.')


def _question(
  dice: Dice, situation: Situation, events: tuple[Event, ...], split: str
) -> str:
  """Fills in people, things and numbers."""
  group = dice.pick((0, 1))
  people = list(_people(group, split))
  name = dice.pick(people)
  people.remove(name)
  he, his, him = _PRONOUNS[group]
  words = {
    'n': name,
    'o': dice.pick(people),
    'he': he,
    'He': he.capitalize(),
    'his': his,
    'His': his.capitalize(),
    'him': him,
    'x': dice.pick(_things(situation, split)),
  }
  return ' '.join(
    e.sentence.format(a=e.a, b=e.b, part=_PARTS.get(e.a, ''), **words)
    for e in events
  )


def _people(group: int, split: str) -> tuple[str, ...]:
  splits = [split] if split else _PEOPLE
  return tuple(name for s in splits for name in _PEOPLE[s][group])


def _things(situation: Situation, split: str) -> tuple[str, ...]:
  things = situation.things
  if not split or len(things) < 3:
    return things
  shares = {'train': things[:-2], 'validation': things[-2:-1]}
  return shares.get(split, things[-1:])
