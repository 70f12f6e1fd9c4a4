"""Arms get what others have drawn where all that decides it is equal."""

import pathlib

import pytest

from rest import tasks
from rest.experiment import share
from rest.run import store
from rest.types import Completion, Graded, Verdict

CONFIG = {
  'seed': 0,
  'model.dtype': 'float32',
  'sampling.max_tokens': 8,
  'sampling.max_prompt_tokens': 64,
  'estep.temperature': 0.7,
  'estep.cap': 10,
  'em.start_from': 'base',
  'em.iterations': 2,
}
RECORD = {'config': CONFIG, 'base': 'b', 'prefix': '', 'data': 'd'}
TASK = tasks.make(tasks.TaskConfig('arithmetic', num_train=6))
FIELDS = ('seed', 'estep.temperature')


def _rows(problem, count: int) -> list[Graded]:
  return [
    Graded(
      problem.id,
      sample,
      TASK.question(problem),
      Completion(f'{problem.id} {sample}', (1,), (), 'token'),
      Verdict(1.0, 'equal', 'math-1'),
    )
    for sample in range(count)
  ]


@pytest.fixture
def source(tmp_path) -> pathlib.Path:
  """A run that has drawn four samples of each of six problems."""
  folder = tmp_path / 'source'
  store.write_json(folder / 'run.json', RECORD)
  parts = store.Parts(folder / 'iteration_1/parts')
  for index, problem in enumerate(TASK.problems('train')):
    parts.write(index, _rows(problem, 4))
  return folder


def _wanted(problems, num_samples: int) -> list[share.Wanted]:
  return [
    share.Wanted('iteration_1/parts', FIELDS, TASK, problems, num_samples)
  ]


def test_fewer_samples_of_fewer_problems_are_the_first_of_the_same(
  source, tmp_path
):
  problems = TASK.problems('train')[1::2]
  wanted = _wanted(problems, 3)
  assert share.first_samples(source, tmp_path / 'to', RECORD, wanted) == 9
  parts = store.Parts(tmp_path / 'to/iteration_1/parts')
  assert list(parts.read_all(3)) == [_rows(problem, 3) for problem in problems]
  assert share.first_samples(source, tmp_path / 'to', RECORD, wanted) == 0


@pytest.mark.parametrize(
  'change',
  [
    {'config': {**CONFIG, 'seed': 1}},
    {'config': {**CONFIG, 'estep.temperature': 1.0}},
    {'config': {**CONFIG, 'sampling.max_prompt_tokens': 32}},
    {'base': 'other'},
    {'prefix': 'Example.'},
  ],
)
def test_nothing_is_shared_where_samples_would_differ(source, tmp_path, change):
  wanted = _wanted(TASK.problems('train'), 4)
  record = {**RECORD, **change}
  assert share.first_samples(source, tmp_path / 'to', record, wanted) == 0
  assert not (tmp_path / 'to').exists()


def test_more_samples_than_were_drawn_are_not_shared(source, tmp_path):
  wanted = _wanted(TASK.problems('train'), 5)
  assert share.first_samples(source, tmp_path / 'to', RECORD, wanted) == 0


def test_runs_that_part_later_share_their_first_iteration_once_it_is_whole(
  source, tmp_path
):
  later = {**RECORD, 'config': {**CONFIG, 'em.start_from': 'previous'}}
  other = {**RECORD, 'config': {**CONFIG, 'estep.cap': 1}}
  target = tmp_path / 'to'
  assert not share.first_iteration(source, target, later, ())
  (source / 'iteration_2').mkdir()
  assert not share.first_iteration(source, target, other, ())
  state = {**CONFIG, 'em.start_from': 'previous_state'}
  carrying = {**RECORD, 'config': state}
  assert not share.first_iteration(source, target, carrying, ())
  assert share.first_iteration(source, target, later, ())
  names = [p.name for p in sorted(target.rglob('part-*'))]
  assert names == [f'part-{i:06d}.jsonl.gz' for i in range(6)]
  assert not share.first_iteration(source, target, later, ())
