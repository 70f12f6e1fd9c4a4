"""The embedded problem set: same bytes, right solutions, no shared problems."""

import itertools
import re

import pytest

from rest import tasks
from rest.tasks import leaks
from rest.tasks.arithmetic import arithmetic, corpus, situations
from rest.types import Problem

_SPLITS = ('train', 'validation', 'test')
_LINE = re.compile(r'[A-Za-z ]+ (\d+) ([-+*/]) (\d+) = (\d+)\.')


def _solution_is_sound(question: str, text: str) -> bool:
  """Every equation holds, uses known numbers, and the last one answers."""
  *lines, last = text.split('\n')
  known = {int(n) for n in re.findall(r'\d+', question)} | {2, 3, 4, 5}
  for line in lines:
    match = _LINE.fullmatch(line)
    assert match, line
    left, sign, right, result = match.groups()
    if eval(f'{left} {sign} {right}') != int(result):
      return False
    if not {int(left), int(right)} <= known:
      return False
    known.add(int(result))
  return bool(lines) and last == f'#### {result}'


def _solution(problem: Problem) -> str:
  assert problem.solution is not None
  return problem.solution


def _sentences(question: str) -> str:
  """The question without its numbers, people and things."""
  people = itertools.chain(*itertools.chain(*situations._PEOPLE.values()))
  things = itertools.chain(*(s.things for s in situations.situations()))
  words = '|'.join([*people, *things, r'\d+', 'a third', 'a quarter'])
  text = re.sub(rf'\b({words}|a fifth)\b', '_', question)
  return re.sub(r'\b(he|she|his|her|him)\b', '_', text, flags=re.I)


def test_problems_are_the_same_bytes_on_every_python():
  task = tasks.make(tasks.TaskConfig('arithmetic'))
  assert tasks.digest(task) == (
    'f4a2477266df5d409b4aa223d92a4163d6b6da3eecbdb2633b02ae693394f46a'
  )


def test_sizes_levels_and_situations_are_as_promised():
  sizes = {split: len(arithmetic.problems(split)) for split in _SPLITS}
  assert sizes == {'train': 4000, 'validation': 300, 'test': 1000}
  assert len(situations.situations()) >= 30
  for split in _SPLITS:
    problems = arithmetic.problems(split)
    assert len({p.subject for p in problems}) >= 30
    for level, steps in situations.LEVELS.items():
      own = [p for p in problems if p.level == level]
      assert len(own) == sizes[split] / 5
      assert {_solution(p).count('\n') for p in own} == set(steps)


@pytest.mark.parametrize('split', _SPLITS)
def test_every_solution_holds_and_ends_in_the_answer(split):
  for problem in arithmetic.problems(split):
    solution = _solution(problem)
    assert _solution_is_sound(problem.question, solution), problem
    assert solution.endswith(f'\n#### {problem.answer}')
    assert 0 < int(problem.answer or '0') < 1000


def test_no_question_is_asked_twice():
  questions = [p.question for s in _SPLITS for p in arithmetic.problems(s)]
  assert len(set(questions)) == len(questions) == 5300


def test_splits_share_no_person_and_no_sequence_of_sentences():
  seen = {
    split: (
      {_sentences(p.question) for p in arithmetic.problems(split)},
      {
        word
        for p in arithmetic.problems(split)
        for word in re.findall(r'\b[A-Z][a-z]+', p.question)
      }
      & set(itertools.chain(*itertools.chain(*situations._PEOPLE.values()))),
    )
    for split in _SPLITS
  }
  for one, other in itertools.combinations(_SPLITS, 2):
    assert not seen[one][0] & seen[other][0]
    assert not seen[one][1] & seen[other][1]


def test_leak_check_finds_nothing_to_drop():
  assert leaks.find(tasks.make(tasks.TaskConfig('arithmetic'))) == []


def test_texts_are_short_enough_for_a_tiny_model():
  problems = [p for s in _SPLITS for p in arithmetic.problems(s)]
  assert max(len(p.question.split()) for p in problems) <= 80
  assert max(len(re.findall(r'\w+|\S', _solution(p))) for p in problems) <= 100
  words = {
    word
    for p in problems
    for word in re.findall('[A-Za-z]+', p.question + _solution(p))
  }
  assert len(words) <= 700


def test_targets_follow_the_prompt_and_subsets_are_nested():
  small = tasks.make(tasks.TaskConfig('arithmetic', num_train=50))
  large = tasks.make(tasks.TaskConfig('arithmetic', num_train=90))
  ids = [p.id for p in large.problems('train')]
  assert {p.id for p in small.problems('train')} < set(ids)
  assert ids == sorted(ids, key=lambda i: int(i.rsplit('/')[-1]))
  problem = small.problems('test')[0]
  text = small.question(problem) + small.target(problem)
  assert text == f'{problem.question}\n{problem.solution}'


def test_corpus_asks_no_problem_of_the_task():
  known = {p.question for s in _SPLITS for p in arithmetic.problems(s)}
  documents = corpus.corpus(3000, 0, corpus.Noise())
  assert not known & {d.prompt.removesuffix('\n') for d in documents}


def test_corpus_tells_another_story_where_one_is_known():
  def tell(known):
    dice = situations.Dice('known')
    return corpus._other_story(dice, '1', known).question

  assert tell({tell(set())}) != tell(set())


def test_corpus_is_a_prefix_of_a_longer_one_and_depends_on_the_seed():
  noise = corpus.Noise()
  short = list(corpus.corpus(20, 1, noise))
  assert short == list(corpus.corpus(40, 1, noise))[:20]
  assert short != list(corpus.corpus(20, 2, noise))


def test_careful_authors_are_right_and_hasty_ones_are_not():
  careful = corpus.Noise((0, 0, 0, 0, 0), 0, 0, 0, 0, 0)
  for document in corpus.corpus(500, 0, careful):
    assert document.correct
    assert _solution_is_sound(document.prompt, document.completion)
  hasty = corpus.Noise((1, 1, 1, 1, 1), 1, 0, 0, 0, 0)
  right = [d.correct for d in corpus.corpus(500, 0, hasty)]
  assert sum(right) < 0.2 * len(right)


def test_a_hasty_answer_reads_like_a_sound_one():
  # The equations hold: only the story shows that they are the wrong ones.
  hasty = corpus.Noise((1, 1, 1, 1, 1), 1, 0, 0, 0, 0)
  for document in corpus.corpus(500, 0, hasty):
    assert _solution_is_sound(document.prompt, document.completion)


def test_slips_make_equations_wrong_and_are_carried_on():
  slips = corpus.Noise((0, 0, 0, 0, 0), 0, 0, 0.2, 0, 0)
  documents = list(corpus.corpus(1000, 0, slips))
  for document in documents:
    sound = _solution_is_sound(document.prompt, document.completion)
    assert sound <= document.correct
  wrong = sum(not d.correct for d in documents) / len(documents)
  # 4.7 steps each on average, one in five of them wrong.
  assert 0.55 < wrong < 0.75


def test_share_of_right_documents_falls_with_the_level():
  noise = corpus.Noise()
  documents = list(corpus.corpus(3000, 0, noise))
  shares = [
    sum(d.correct for d in documents if d.level == level)
    for level in situations.LEVELS
  ]
  assert shares == sorted(shares, reverse=True)


def test_unknown_names_and_sizes_are_refused():
  with pytest.raises(ValueError, match=r'task\.name must be one of .*mth'):
    tasks.make(tasks.TaskConfig('mth'))
  task = tasks.make(tasks.TaskConfig('arithmetic', num_train=5000))
  with pytest.raises(ValueError, match=r'task\.num_train .* 4000.* got 5000'):
    task.problems('train')
  with pytest.raises(ValueError, match='split must be one of'):
    task.problems('valid')
