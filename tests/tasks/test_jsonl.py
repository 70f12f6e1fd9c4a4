"""Problems as records, without code."""

import json
import pathlib
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from rest import tasks
from rest.config import TaskConfig

_RECORDS: list[dict[str, Any]] = [
  {
    'split': split,
    'question': f'{split} {i}?',
    'answer': i,
    'solution': f'It is {i}.',
    'level': i % 2,
  }
  for split, size in (('train', 6), ('validation', 3), ('test', 4))
  for i in range(size)
]


def write(path: pathlib.Path, records: list[dict[str, Any]]) -> str:
  path.write_text(''.join(json.dumps(record) + '\n' for record in records))
  return str(path)


def make(path: object, **fields) -> tasks.ProblemSet:
  fields = {'verifier': 'math', 'num_validation': 2, **fields}
  return tasks.make(TaskConfig('jsonl', str(path), **fields))


def asked(task: tasks.ProblemSet) -> dict[str, list[tasks.Problem]]:
  return {split: task.problems(split) for split in tasks.SPLITS}


def test_one_file_a_folder_and_parquet_are_one_set(tmp_path):
  task = make(write(tmp_path / 'all.jsonl', _RECORDS))
  assert [len(rows) for rows in asked(task).values()] == [6, 2, 4]
  problem = task.problems('test')[3]
  assert problem == tasks.Problem(
    'test/3', 'test 3?', '3', solution='It is 3.', level='1'
  )
  table = pyarrow.Table.from_pylist(_RECORDS)
  parquet.write_table(table, tmp_path / 'all.parquet')
  folder = tmp_path / 'folder'
  folder.mkdir()
  for split in tasks.SPLITS:
    rows = [record for record in _RECORDS if record['split'] == split]
    write(folder / f'{split}.jsonl', rows)
  for path in (tmp_path / 'all.parquet', folder):
    assert asked(make(path)) == asked(task)
    assert tasks.digest(make(path)) == tasks.digest(task)


def test_what_has_no_test_split_holds_some_of_train_out(tmp_path):
  records = [{'question': f'{i}?', 'answer': str(i)} for i in range(9)]
  path = write(tmp_path / 'all.jsonl', records)
  splits = asked(make(path, num_test=3))
  assert [len(rows) for rows in splits.values()] == [4, 2, 3]
  assert len({p.id for rows in splits.values() for p in rows}) == 9
  with pytest.raises(ValueError, match=r'task\.num_test how many of the 9 '):
    make(path).problems('test')


def test_a_template_asks_behind_a_prefix(tmp_path):
  path = write(tmp_path / 'all.jsonl', _RECORDS)
  fields = {'template': 'Q: {question}\nA:', 'prefix': 'Be brief.\n'}
  task = make(path, **fields, stop=('\nQ:',))
  text = '{question.__class__} {0} {{1}}'
  asks = task.question(tasks.Problem('a', text))
  assert (task.prefix, asks) == ('Be brief.\n', f'Q: {text}\nA:')
  assert task.stop == ('\nQ:',)
  assert make(path, **fields, prompt='zero_shot').prefix == ''


@pytest.mark.parametrize(
  'given',
  [
    'assert f(1) == 2\nassert f(2) == 3',
    ['assert f(1) == 2', 'assert f(2) == 3'],
    {'kind': 'call', 'entry_point': 'f', 'inputs': ['[1]'], 'outputs': ['2']},
    '{"kind": "stdin", "inputs": ["1"], "outputs": ["2"], "script": null}',
  ],
)
def test_tests_are_assertions_or_fields(given, tmp_path):
  record = {'question': '?', 'checks': given}
  path = write(tmp_path / 'a.jsonl', [{**record, 'id': i} for i in range(2)])
  task = make(
    path, verifier='program', tests_field='checks', num_test=1, num_validation=0
  )
  problem = task.problems('train')[0]
  assert problem.tests is not None
  assert problem.tests.script.count('assert') == (
    2 if 'f(2)' in str(given) else 0
  )
  assert task.program(problem, 'f = int').strip() == 'f = int'


@pytest.mark.parametrize(
  ('change', 'fields', 'match'),
  [
    ({'question': None}, {}, r"line 13: field 'question' must be text, got N"),
    ({'answer': None}, {}, r"line 13: field 'answer' must be text, got None"),
    ({'answer': True}, {}, r"line 13: field 'answer' must be text, got True"),
    ({'split': 'dev'}, {}, r"line 13: field 'split' must be one of .* 'dev'"),
    ({'level': []}, {}, r"line 13: field 'level' must be text, got \[\]"),
    ({}, {'answer_field': 'a'}, r"line 1: field 'a' is missing; there are"),
    ({}, {'verifier': 'program'}, r"line 1: field 'tests' is missing"),
    ({'tests': {}}, {'verifier': 'program', 'num_test': 0}, 'missing'),
    ({}, {'verifier': ''}, r"\(task\.verifier\) must be one of .* got ''"),
    ({}, {'verifier': 'hang'}, r"must be one of .* got 'hang'"),
    ({}, {'template': 'Q: '}, r'task\.template must hold \{question\}'),
    ({'id': 'test/0'}, {}, r"problem 'test/0' 2 times in test"),
  ],
)
def test_what_is_wrong_names_the_line_or_the_field(
  change, fields, match, tmp_path
):
  records = [*_RECORDS[:-1], {**_RECORDS[-1], **change}]
  path = write(tmp_path / 'all.jsonl', records)
  with pytest.raises(ValueError, match=match):
    make(path, **fields).problems('test')


def test_fields_of_records_are_refused_for_other_sets():
  config = TaskConfig('arithmetic', verifier='exact')
  with pytest.raises(ValueError, match=r"task\.verifier is of name='jsonl'"):
    tasks.make(config)


def test_a_function_may_have_any_answer_and_its_file_counts(tmp_path):
  (tmp_path / 'r.py').write_text('def reward(problem, text): return 1.0\n')
  records = [{'question': f'{i}?', 'answer': {'x': [i]}} for i in range(4)]
  path = write(tmp_path / 'a.jsonl', records)
  fields: dict[str, Any] = {'num_test': 1, 'num_validation': 1}
  task = make(path, verifier=f'{tmp_path}/r.py:reward', **fields)
  answers = {p.answer for s in tasks.SPLITS for p in task.problems(s)}
  assert answers == {f'{{"x": [{i}]}}' for i in range(4)}
  (tmp_path / 's.py').write_text('def reward(problem, text): return 0.0\n')
  other = make(path, verifier=f'{tmp_path}/s.py:reward', **fields)
  assert tasks.digest(other) != tasks.digest(task)
