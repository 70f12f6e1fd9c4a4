"""The leak check finds overlap between splits, prompts and transfer sets."""

from excerpts import make

from rest.tasks import leaks
from rest.types import Problem

_LONG = (
  'A farmer has seventeen hens and each of them lays two eggs on every day of'
  ' the week except Sunday. How many eggs are there after three weeks?'
)


class _Task:
  """Whatever problems a test wants."""

  name = version = verifier = 'made'
  stop = ()
  turn_end = ''

  def __init__(self, prefix: str = '', **splits: list[str]):
    self.prefix = prefix
    self._splits = splits

  def problems(self, split: str) -> list[Problem]:
    questions = self._splits.get(split, [])
    return [Problem(f'{split}/{i}', q) for i, q in enumerate(questions)]

  def question(self, problem: Problem) -> str:
    return problem.question

  def target(self, problem: Problem) -> str:
    return problem.question

  def program(self, problem: Problem, completion: str) -> str:
    return completion


def test_each_overlap_is_dropped_from_the_split_that_matters_less():
  task = _Task(
    prefix=f'Example: {_LONG}',
    train=['What is 1 + 2?', 'What is 3 + 4?', _LONG],
    validation=['what is  $1+2$', 'What is 5 + 6?'],
    test=['What is 5+6 ?', 'Is 7 a prime number?'],
  )
  found = leaks.find(task)
  assert [(leak.problem_id, leak.source, leak.reason) for leak in found] == [
    ('train/0', 'validation validation/0', 'same text'),
    ('train/2', 'prompt', 'same text'),
    ('validation/1', 'test test/0', 'same text'),
  ]
  clean = leaks.Clean(task, found)
  assert leaks.find(clean) == []
  assert [p.id for p in clean.problems('train')] == ['train/1']
  assert len(clean.problems('test')) == 2


def test_how_a_set_puts_its_questions_is_no_overlap():
  train = [f'Number {i}: {_LONG}' for i in range(60)]
  assert leaks.find(_Task(train=train, test=[f'Number 99: {_LONG}'])) == []
  found = leaks.find(_Task(train=[*train[:5], _LONG], test=[train[0]]))
  assert [leak.problem_id for leak in found] == [f'train/{i}' for i in range(6)]


def test_a_question_with_other_numbers_at_its_end_is_an_overlap():
  other = _LONG.replace('three weeks', 'five weeks')
  found = leaks.find(_Task(train=[other], test=[_LONG]))
  assert [leak.problem_id for leak in found] == ['train/0']
  assert 0.5 <= float(found[0].reason) < 1


def test_one_shared_phrase_is_no_overlap():
  words = _LONG.split()
  phrase = ' '.join(words[:14])
  rest = ' '.join(f'word{i}' for i in range(20))
  assert leaks.find(_Task(train=[f'{phrase} {rest}'], test=[_LONG])) == []


def test_short_questions_overlap_only_if_they_read_the_same():
  task = _Task(train=['What is 3 - 5?', 'what is 3+5'], test=['What is 3+5?'])
  assert [leak.problem_id for leak in leaks.find(task)] == ['train/1']


def test_figures_are_compared_only_as_part_of_the_whole_text():
  figure = '[asy] ' + ' '.join(f'draw{i}' for i in range(40)) + ' [/asy]'
  task = _Task(
    train=[f'Find x. {figure}', f'Find y. {figure}'],
    test=[f'Find x. {figure}'],
  )
  assert [leak.problem_id for leak in leaks.find(task)] == ['train/0']


def test_known_duplicates_of_the_published_sets_are_found():
  found = leaks.find(make('math', num_validation=0))
  assert [(leak.problem_id, leak.source, leak.reason) for leak in found] == [
    ('math/train/algebra/256', 'prompt', 'same text'),
    (
      'math/train/geometry/6032',
      'test math/test/precalculus/24307',
      'same text',
    ),
  ]
  found = leaks.find(make('mbpp', num_validation=0))
  # 602 and 217 are another pair; 217 is not in the excerpt.
  assert [(leak.problem_id, leak.source) for leak in found] == [
    ('mbpp/704', 'test mbpp/248'),
    ('mbpp/872', 'test mbpp/216'),
  ]


def test_transfer_sets_lose_what_was_trained_on():
  mbpp = _Task(train=['What is 1 + 2?'])
  mbpp.problems = lambda split: (  # The id of a problem with another text.
    [Problem('mbpp/793', 'Old words.')] if split == 'train' else []
  )
  found = leaks.find_in_suite(mbpp, make('mbpp_plus', split='all'))
  assert [(leak.split, leak.problem_id, leak.reason) for leak in found] == [
    ('test', 'mbpp/793', 'same id')
  ]
