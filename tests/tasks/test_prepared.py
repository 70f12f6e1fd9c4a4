"""Prepared copies: the same problems, without TensorFlow."""

import os
import pathlib
import subprocess
import sys
from typing import Any

import pytest
import tensorflow_datasets as tfds
from excerpts import DATA, make

from rest import tasks
from rest.tasks import prepared


@pytest.mark.parametrize(
  ('name', 'fields'),
  [
    ('gsm8k', {}),
    ('math', {'split': 'prm800k'}),
    ('apps', {}),
    ('mbpp', {}),
    ('mbpp_plus', {'split': 'all'}),
    ('humaneval', {}),
    ('humaneval_plus', {}),
    ('bbh', {'split': 'word_sorting'}),
    ('hungarian_exam', {}),
  ],
)
def test_problems_are_the_same_from_files_and_from_a_copy(
  name, fields, tmp_path
):
  original = make(name, **fields)
  copy = make(name, prepared.prepare(original, str(tmp_path)), **fields)
  for split in tasks.SPLITS:
    assert copy.problems(split) == original.problems(split)
  assert tasks.digest(copy) == tasks.digest(original)


def test_tfds_reads_a_copy_as_bytes(tmp_path):
  path = prepared.prepare(make('gsm8k'), str(tmp_path))
  assert pathlib.Path(path) == tmp_path / 'gsm8k' / '1.0.0'
  source: Any = tfds.data_source(
    'gsm8k', split='train', data_dir=str(tmp_path), download=False
  )
  assert len(source) == 8
  assert source[0]['id'] == b'gsm8k/train/0'
  assert b'clips' in source[0]['question']


def test_nothing_imports_tensorflow(tmp_path):
  stub = tmp_path / 'tensorflow'
  stub.mkdir()
  (stub / '__init__.py').write_text("raise RuntimeError('imported')")
  program = f"""
from rest import tasks
from rest.tasks import prepared
def make(path):
  return tasks.make(tasks.TaskConfig('gsm8k', path, num_validation=1))
copy = prepared.prepare(make({str(DATA / 'gsm8k')!r}), {str(tmp_path)!r})
print(len(make(copy).problems('train')))
"""
  done = subprocess.run(
    [sys.executable, '-W', 'error', '-c', program],
    env={**os.environ, 'PYTHONPATH': str(tmp_path)},
    capture_output=True, text=True, check=True,
  )  # fmt: skip
  assert done.stdout.endswith('7\n')


def test_a_copy_of_something_else_is_refused(tmp_path):
  original = make('math')
  copy = prepared.prepare(original, str(tmp_path))
  other = make('math', copy, split='prm800k')
  with pytest.raises(ValueError, match=r'original.*prm800k.*Prepare it again'):
    other.problems('train')
  with pytest.raises(ValueError, match='exists: delete it'):
    prepared.prepare(original, str(tmp_path))
