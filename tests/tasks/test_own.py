"""A set of one's own: a class in a file."""

import pathlib
import pickle
import subprocess
import sys

import pytest

from rest import tasks
from rest.config import TaskConfig
from rest.tasks import leaks, suites

_SUMS = """
from rest.tasks import Problem, ProblemSet

class Sums(ProblemSet):
  name = 'sums'
  verifier = 'exact'

  def read(self, split):
    for i in range(20):
      question = f'What are {i} and {len(split)}?'
      yield Problem(f'{split}/{i}', question, str(i + len(split)))

  def shots(self):
    return 'What are 1 and 1? 2' + chr(10)

  def question(self, problem):
    return f'{problem.question} '
"""


def make(folder: pathlib.Path, code: str, **fields) -> tasks.ProblemSet:
  folder.mkdir(exist_ok=True)
  (folder / 'sums.py').write_text(code)
  fields = {'num_validation': 4, **fields}
  return tasks.make(TaskConfig(f'{folder}/sums.py:Sums', **fields))


def test_a_class_of_twenty_lines_is_a_task(tmp_path):
  task = make(tmp_path, _SUMS, num_test=5)
  assert [len(task.problems(s)) for s in tasks.SPLITS] == [16, 4, 5]
  problem = task.problems('test')[0]
  assert task.question(problem) == f'{problem.question} '
  assert task.prefix == 'What are 1 and 1? 2\n'
  assert make(tmp_path, _SUMS, prompt='zero_shot').prefix == ''
  assert leaks.find(task) == []
  assert suites.make(task, ('arithmetic',), '', 3, model='')[0].problems


def test_another_process_makes_the_task_anew(tmp_path):
  for text in (
    pickle.dumps(make(tmp_path, _SUMS)),
    pickle.dumps(tasks.make(TaskConfig('arithmetic'))),
  ):
    program = (
      f'import pickle; print(pickle.loads({text!r}).problems("test")[0])'
    )
    done = subprocess.run(
      [sys.executable, '-c', program], capture_output=True, text=True
    )
    assert done.stdout == f'{pickle.loads(text).problems("test")[0]}\n'


def test_the_digest_is_that_of_the_file(tmp_path):
  """So that a run does not go on with another file, wherever that is."""
  first = tasks.digest(make(tmp_path / 'a', _SUMS))
  assert tasks.digest(make(tmp_path / 'b', _SUMS)) == first
  assert tasks.digest(make(tmp_path / 'c', _SUMS + '# Other.\n')) != first


@pytest.mark.parametrize(
  ('old', 'new', 'match'),
  [
    ('import Problem,', 'import Problems,', r'sums\.py, line 2: ImportError'),
    ('len(split)}', 'size}', r"sums\.py, line 10: NameError: name 'size'"),
    ('.question} ', '.text} ', r'sums\.py, line 17: AttributeError: '),
    ('class Sums(', 'class Sums:', r'sums\.py, line 4: SyntaxError: '),
    ('(ProblemSet)', '', r'must be a class made from rest\.tasks\.Prob'),
    ("  name = 'sums'\n", '', r'Sums\.name must be a text'),
    ("'exact'", "'eaxct'", r"must be one of .* got 'eaxct'"),
    ("'exact'", "'program'", r"problem 'train/\d+': it has no tests"),
    (', str(i', ', int(i', r"problem 'train/\d+': answer must be text"),
    ('yield Problem', 'yield', r"read\('train'\) must yield Problems, got \("),
    ('range(20)', 'range(2)', r'task\.num_validation must be between 0 and 2'),
  ],
)
def test_errors_name_the_line_or_what_is_wrong(old, new, match, tmp_path):
  assert old in _SUMS
  with pytest.raises(ValueError, match=match):
    make(tmp_path, _SUMS.replace(old, new))


def test_a_file_that_is_not_there_is_named(tmp_path):
  with pytest.raises(ValueError, match=r'task\.name=.*: there is no file .*x'):
    tasks.make(TaskConfig(f'{tmp_path}/x.py:Sums'))
  with pytest.raises(ValueError, match=r'sums\.py defines no Sum\.'):
    make(tmp_path, _SUMS)
    tasks.make(TaskConfig(f'{tmp_path}/sums.py:Sum'))
