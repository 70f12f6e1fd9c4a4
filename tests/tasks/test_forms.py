"""Problem sets as the world has them: the same problems from every form."""

import json
import pathlib
import subprocess
import sys
from typing import Any

import pyarrow
import pytest
from excerpts import DATA, make, records_of
from pyarrow import parquet

from rest import tasks
from rest.run import store
from rest.tasks.sets import math_ids
from rest.types import Task


def _write(path: pathlib.Path, records: list[dict[str, Any]]) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  parquet.write_table(pyarrow.Table.from_pylist(records), path)


def _assert_same(one: Task, other: Task) -> None:
  for split in tasks.SPLITS:
    hashes = [
      store.hash_problems(task.problems(split)) for task in (one, other)
    ]
    assert hashes[0] == hashes[1], split
  assert tasks.digest(one) == tasks.digest(other)


@pytest.mark.parametrize(
  'form', ['{}.parquet', 'main/{}-00000-of-00001.parquet', '{}/0000.parquet']
)
def test_gsm8k_is_the_same_from_parquet(form, tmp_path):
  for split in ('train', 'test'):
    _write(tmp_path / form.format(split), records_of(f'gsm8k/{split}.jsonl'))
  _assert_same(make('gsm8k', tmp_path), make('gsm8k', DATA / 'gsm8k'))


def test_shards_are_read_in_order_and_none_may_be_missing(tmp_path):
  records = records_of('gsm8k/train.jsonl')
  for place, part in enumerate((records[:3], records[3:5], records[5:])):
    _write(tmp_path / f'train-{place:05d}-of-00003.parquet', part)
  _write(tmp_path / 'test.parquet', records_of('gsm8k/test.jsonl'))
  _assert_same(make('gsm8k', tmp_path), make('gsm8k', DATA / 'gsm8k'))
  (tmp_path / 'train-00002-of-00003.parquet').unlink()
  with pytest.raises(ValueError, match=r'2 of the 3 files train-\*-of-00003'):
    make('gsm8k', tmp_path).problems('train')


@pytest.mark.parametrize('split', ['original', 'prm800k'])
def test_math_without_names_is_the_same_problems(split, tmp_path):
  for part in ('train', 'test'):
    records = records_of(f'math/{part}.jsonl.gz')
    for record in records:
      del record['unique_id']
    # Copies come in any order, and by subject.
    for subject in {record['type'] for record in records}:
      rows = [r for r in reversed(records) if r['type'] == subject]
      _write(
        tmp_path / subject.lower() / f'{part}-00000-of-00001.parquet', rows
      )
  excerpt = (DATA / 'math' / 'math500.jsonl').read_bytes()
  (tmp_path / 'math500.jsonl').write_bytes(excerpt)
  copy = make('math', tmp_path, split=split)
  _assert_same(copy, make('math', DATA / 'math', split=split))


def test_math_from_lines_without_names_is_the_same_problems(tmp_path):
  for part in ('train', 'test'):
    records = records_of(f'math/{part}.jsonl.gz')
    for record in records:
      del record['unique_id']
      record['problem'] = record['problem'].replace(' ', '  ').strip() + '\n'
    lines = '\n'.join(map(json.dumps, records))
    (tmp_path / f'{part}.jsonl').write_text(lines)
  copy, original = (
    make('math', tmp_path),
    make('math', DATA / 'math'),
  )
  for part in tasks.SPLITS:
    ids = [[p.id for p in t.problems(part)] for t in (copy, original)]
    assert ids[0] == ids[1]


def test_problems_that_math_does_not_have_are_named_by_their_text(tmp_path):
  record = {
    'problem': 'What is 1 + 1?',
    'level': 'Level 1',
    'type': 'Counting & Probability',
    'solution': r'It is $\boxed{2}$.',
  }
  for part in ('train', 'test'):
    _write(tmp_path / f'{part}.parquet', [record, *_math_records(part)])
  task = make('math', tmp_path, num_validation=0)
  *known, own = task.problems('train')
  key = math_ids.digest('What is 1+1?')
  assert own.id == f'math/train/counting_and_probability/{key}'
  original = make('math', DATA / 'math', num_validation=0)
  assert known == original.problems('train')


def _math_records(part: str) -> list[dict[str, Any]]:
  records = records_of(f'math/{part}.jsonl.gz')
  return [{k: v for k, v in r.items() if k != 'unique_id'} for r in records]


def test_mbpp_is_the_same_from_parquet_in_four_splits(tmp_path):
  records = records_of('mbpp/mbpp.jsonl')
  for place, split in enumerate(('prompt', 'train', 'validation', 'test')):
    file = tmp_path / 'full' / f'{split}-00000-of-00001.parquet'
    _write(file, records[place::4])
  copy, original = (
    make('mbpp', tmp_path),
    make('mbpp', DATA / 'mbpp'),
  )
  for split in tasks.SPLITS:
    ours = {p.id: p for p in copy.problems(split)}
    assert ours == {p.id: p for p in original.problems(split)}


@pytest.mark.parametrize('form', ['sanitized-mbpp.json', 'train.parquet'])
def test_sanitized_mbpp_is_mbpp_in_other_words(form, tmp_path):
  records = [
    {
      'source_file': '',
      'task_id': record['task_id'],
      'prompt': record['text'],
      'code': record['code'],
      'test_imports': ['import math'],
      'test_list': record['test_list'],
    }
    for record in records_of('mbpp/mbpp.jsonl')
  ]
  if form.endswith('.json'):
    (tmp_path / form).write_text(json.dumps(records))
  else:
    _write(tmp_path / form, records)
  copy, original = (
    make('mbpp', tmp_path),
    make('mbpp', DATA / 'mbpp'),
  )
  for split in tasks.SPLITS:
    pairs = zip(copy.problems(split), original.problems(split), strict=True)
    for ours, theirs in pairs:
      assert copy.question(ours) == original.question(theirs)
      assert ours.tests and ours.tests.script.startswith('import math\nassert')


@pytest.mark.parametrize(
  ('name', 'file', 'copy', 'split'),
  [
    (
      *('humaneval', 'HumanEval.jsonl.gz'),
      *('openai_humaneval/test-00000-of-00001.parquet', ''),
    ),
    (
      *('humaneval_plus', 'HumanEvalPlus-OriginFmt.jsonl.gz'),
      *('data/test-00000-of-00001.parquet', ''),
    ),
    ('mbpp_plus', 'MbppPlus-OriginFmt.jsonl.gz', 'test.parquet', 'all'),
    (
      *('bbh', 'word_sorting.jsonl'),
      *('word_sorting/test-00000-of-00001.parquet', 'word_sorting'),
    ),
  ],
)
def test_sets_that_only_test_are_the_same_from_parquet(
  name, file, copy, split, tmp_path
):
  _write(tmp_path / copy, records_of(f'{name}/{file}'))
  original = make(name, DATA / name, split=split)
  _assert_same(make(name, tmp_path, split=split), original)


def test_two_copies_of_the_same_problems_are_refused(tmp_path):
  for name in ('mbpp', 'copy'):
    _write(tmp_path / f'{name}.parquet', records_of('mbpp/mbpp.jsonl'))
  with pytest.raises(ValueError, match=r"problem 'mbpp/\d+' 2 times in train"):
    make('mbpp', tmp_path).problems('train')


def _decoded(record: dict[str, Any]) -> dict[str, Any]:
  decoded = dict(record)
  for field in ('solutions', 'input_output'):
    text = record[field]
    decoded[field] = json.loads(text) if text.strip() else None
  decoded['starter_code'] = record['starter_code'] or None
  return decoded


def test_apps_is_the_same_with_its_fields_decoded(tmp_path):
  for split, file in (('train', 'train.jsonl.gz'), ('test', 'test.jsonl')):
    records = map(_decoded, records_of(f'apps/{file}'))
    lines = '\n'.join(map(json.dumps, records))
    (tmp_path / f'{split}.jsonl').write_text(lines)
  original = make('apps', DATA / 'apps', split='all')
  _assert_same(make('apps', tmp_path, split='all'), original)


def test_apps_is_the_same_from_parquet(tmp_path):
  for split, file in (('train', 'train.jsonl.gz'), ('test', 'test.jsonl')):
    _write(tmp_path / 'data' / f'{split}.parquet', records_of(f'apps/{file}'))
  original = make('apps', DATA / 'apps', split='all')
  _assert_same(make('apps', tmp_path, split='all'), original)


def test_apps_is_the_same_from_parquet_with_its_fields_decoded(tmp_path):
  records = [
    record
    for record in map(_decoded, records_of('apps/train.jsonl.gz'))
    if 'fn_name' not in (record['input_output'] or {})
  ]
  for record in records:  # A table has every field in every row.
    record['input_output'] = {**record['input_output'], 'fn_name': None}
  for split in ('train', 'test'):
    _write(tmp_path / f'{split}.parquet', records)
  copy = make('apps', tmp_path, split='all', num_validation=0)
  original = make('apps', DATA / 'apps', split='all', num_validation=0)
  theirs = {p.id: p for p in original.problems('train')}
  assert copy.problems('train')
  assert all(p == theirs[p.id] for p in copy.problems('train'))


@pytest.mark.parametrize(
  ('field', 'value'),
  [
    ('input_output', ['1']),
    ('solutions', {'a': 'print(1)'}),
    ('solutions', [1]),
    ('input_output', 3),
  ],
)
def test_decoded_fields_of_another_form_are_named(field, value, tmp_path):
  record = _decoded(records_of('apps/test.jsonl')[0])
  (tmp_path / 'test.jsonl').write_text(json.dumps({**record, field: value}))
  (tmp_path / 'train.jsonl').write_text(json.dumps(record))
  with pytest.raises(ValueError, match=rf"line 1: field '{field}'"):
    make('apps', tmp_path, split='all').problems('test')


def test_a_malformed_row_names_file_row_and_field(tmp_path):
  records = records_of('gsm8k/test.jsonl')
  _write(tmp_path / 'train.parquet', records)
  records[2]['answer'] = None
  _write(tmp_path / 'test.parquet', records)
  with pytest.raises(ValueError, match=r"test\.parquet, row 3: field 'answer'"):
    make('gsm8k', tmp_path).problems('test')
  whole = (tmp_path / 'train.parquet').read_bytes()
  for data in (whole[:-40], b'not parquet'):
    (tmp_path / 'train.parquet').write_bytes(data)
    with pytest.raises(ValueError, match='not a whole parquet file'):
      make('gsm8k', tmp_path).problems('train')
  _write(tmp_path / 'train.parquet', [])
  with pytest.raises(ValueError, match=r'train\.parquet: no records'):
    make('gsm8k', tmp_path).problems('train')


def test_parquet_without_pyarrow_says_what_to_install(tmp_path):
  _write(tmp_path / 'train.parquet', records_of('gsm8k/train.jsonl'))
  program = f"""
import sys
sys.modules['pyarrow'] = None
from rest import tasks
tasks.make(tasks.TaskConfig('gsm8k', {str(tmp_path)!r})).problems('train')
"""
  done = subprocess.run(
    [sys.executable, '-c', program], capture_output=True, text=True
  )
  assert "pip install 'rest[parquet]'" in done.stderr.splitlines()[-1]
