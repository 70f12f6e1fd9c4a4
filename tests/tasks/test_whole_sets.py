"""Whole problem sets, where REST_DATA names the folder that holds them."""

import gzip
import json
import os
import pathlib
from collections import Counter

import pytest
from etils import epath

from rest import tasks
from rest.tasks import files, leaks
from rest.tasks.sets import bbh, math_ids
from rest.types import Task

_ROOT = os.environ.get('REST_DATA', '')
DATA = pathlib.Path(_ROOT)

pytestmark = pytest.mark.skipif(not _ROOT, reason='REST_DATA is not set')


def _make(name: str, **fields) -> Task:
  fields = {'num_validation': 0, **fields}
  return tasks.make(tasks.TaskConfig(name, str(DATA / name), **fields))


@pytest.mark.parametrize(
  ('name', 'fields', 'sizes'),
  [
    ('gsm8k', {}, (7473, 0, 1319)),
    ('gsm8k', {'num_validation': 300}, (7173, 300, 1319)),
    ('math', {}, (7500, 0, 5000)),
    ('math', {'split': 'prm800k'}, (12000, 0, 500)),
    ('math', {'split': 'math500'}, (0, 0, 500)),
    ('mbpp', {'num_validation': 90}, (374, 90, 500)),
    ('mbpp_plus', {}, (0, 0, 224)),
    ('mbpp_plus', {'split': 'all'}, (0, 0, 378)),
    ('humaneval', {}, (0, 0, 164)),
    ('humaneval_plus', {}, (0, 0, 164)),
    ('bbh', {}, (0, 0, 6511)),
    ('hungarian_exam', {}, (0, 0, 33)),
  ],
)
def test_sizes_are_as_published(name, fields, sizes):
  task = _make(name, **fields)
  assert tuple(len(task.problems(s)) for s in tasks.SPLITS) == sizes
  ids = [p.id for s in tasks.SPLITS for p in task.problems(s)]
  assert len(set(ids)) == len(ids)


def test_bbh_has_the_published_number_of_each_task():
  counts = Counter(p.subject for p in _make('bbh').problems('test'))
  odd = {'causal_judgement': 187, 'penguins_in_a_table': 146, 'snarks': 178}
  assert counts == {name: odd.get(name, 250) for name in bbh.TASKS}


def test_math_answers_are_those_of_math500():
  lines = (DATA / 'math' / 'math500.jsonl').read_text().splitlines()
  published = [json.loads(line)['answer'] for line in lines]
  task = _make('math', split='prm800k')
  assert [p.answer for p in task.problems('test')] == published


def test_every_problem_of_math_has_its_name_without_it():
  for split in ('train', 'test'):
    data = gzip.decompress((DATA / 'math' / f'{split}.jsonl.gz').read_bytes())
    records = [json.loads(line) for line in data.splitlines()]
    bare = [
      files.Record({k: v for k, v in r.items() if k != 'unique_id'}, '')
      for r in records
    ]
    named = math_ids.named(reversed(bare), split)
    names = [record.text('unique_id') for record in named]
    assert names == [r['unique_id'].removesuffix('.json') for r in records]


def test_the_names_of_math_are_made_from_its_files():
  paths = [epath.Path(DATA) / f'math/{s}.jsonl.gz' for s in ('train', 'test')]
  words = []
  for record in files.read(paths):
    name = record.text('unique_id').removesuffix('.json')
    texts = record.text('problem'), record.text('solution')
    words.append([name, *map(math_ids.digest, texts)])
  # The solution's digest is there only where a problem stands twice.
  counts = Counter(problem for _, problem, _ in words)
  lines = [' '.join(w[: 3 if counts[w[1]] > 1 else 2]) + '\n' for w in words]
  shipped = pathlib.Path(math_ids.__file__).with_name('math_ids.gz')
  assert gzip.decompress(shipped.read_bytes()).decode() == ''.join(lines)


def test_every_gsm8k_target_is_free_of_marks():
  task = _make('gsm8k')
  for problem in task.problems('train') + task.problems('test'):
    assert '<<' not in task.target(problem)
    assert problem.answer and problem.answer.lstrip('-').isdigit()


def test_mbpp_functions_are_the_published_entry_points():
  data = gzip.decompress((DATA / 'mbpp_plus/MbppPlus.jsonl.gz').read_bytes())
  published = {
    r['task_id'].lower(): r['entry_point']
    for r in map(json.loads, data.splitlines())
  }
  for problem in _make('mbpp_plus', split='all').problems('test'):
    assert problem.tests
    assert problem.tests.entry_point == published[problem.id]
  mbpp = _make('mbpp', num_validation=90)
  for problem in (p for s in tasks.SPLITS for p in mbpp.problems(s)):
    assert problem.tests and problem.tests.entry_point


def test_apps_excerpts_have_tests_and_solutions(tmp_path):
  for split, name in (
    ('train', 'train_minival150.jsonl.gz'),
    ('test', 'train_coderl5.jsonl'),
  ):
    suffix = '.'.join(name.split('.')[1:])
    data = (DATA / 'apps' / name).read_bytes()
    (tmp_path / f'{split}.{suffix}').write_bytes(data)
  task = tasks.make(
    tasks.TaskConfig('apps', str(tmp_path), split='all', num_validation=10)
  )
  # The only solution of 2036 does not compile.
  assert [len(task.problems(s)) for s in tasks.SPLITS] == [139, 10, 5]
  kinds = [p.tests.kind for p in task.problems('train') if p.tests]
  assert set(kinds) == {'stdin', 'call'}
  introductory = tasks.make(
    tasks.TaskConfig('apps', str(tmp_path), num_validation=0)
  )
  assert len(introductory.problems('train')) == 50


def test_shipped_prompts_are_the_published_ones():
  gsm8k = (DATA / 'fewshot' / 'gsm8k_cot_8shot.md').read_text()
  assert _make('gsm8k').prefix == gsm8k + '\n\n\n'
  lines = (DATA / 'fewshot' / 'minerva_math_4shot.jsonl').read_text()
  prefix = _make('math').prefix
  for shot in map(json.loads, lines.splitlines()):
    assert f'Problem:\n{shot["problem"]}\n\n' in prefix
    assert f'Solution:\n{shot["solution"]}\n\n' in prefix
  for name in bbh.TASKS:
    published = DATA / 'bbh' / 'cot-prompts' / f'{name}.txt'
    assert files.prompt_text(f'bbh/{name}.txt') == published.read_text()


def test_math_leaks_are_found():
  found = {leak.problem_id: leak for leak in leaks.find(_make('math'))}
  known = found['math/train/geometry/6032']
  assert known.source == 'test math/test/precalculus/24307'
  assert known.reason == 'same text'
  in_prompt = {name for name, leak in found.items() if leak.source == 'prompt'}
  assert in_prompt == {
    'math/train/algebra/943',
    'math/train/precalculus/372',
    'math/train/algebra/256',
    'math/train/algebra/1951',
  }
  # Looked at: near copies with other numbers, besides ten exact ones.
  assert 150 < len(found) < 250
  assert all(leak.split == 'train' for leak in found.values())


def test_gsm8k_prompt_is_in_neither_split():
  found = leaks.find(_make('gsm8k', num_validation=300))
  assert all(leak.source != 'prompt' for leak in found)
  assert len(found) < 10


def test_mbpp_leaks_are_found():
  mbpp = _make('mbpp', num_validation=90)
  pairs = {(leak.problem_id, leak.source) for leak in leaks.find(mbpp)}
  assert pairs >= {
    ('mbpp/602', 'test mbpp/217'),
    ('mbpp/704', 'test mbpp/248'),
    ('mbpp/872', 'test mbpp/216'),
  }
  every = leaks.find_in_suite(mbpp, _make('mbpp_plus', split='all'))
  # 108 of train and 39 of validation stand in MBPP+ under the same id.
  assert sum(leak.reason == 'same id' for leak in every) == 108 + 39
  # By default only MBPP's test range is asked; repeated texts remain.
  default = leaks.find_in_suite(mbpp, _make('mbpp_plus'))
  assert {leak.reason for leak in default} == {'same text'}
