"""A reward function of the user's: whatever it does, nothing is lost."""

import subprocess
import sys

import pytest

from rest import tasks, types
from rest.config import TaskConfig
from rest.types import Problem
from rest.verify import Pool, Request, VerifyConfig, reward

_FUNCTION = """
import os, sys, time
def reward(problem, text):
  if text == 'hang':
    time.sleep(1e6)
  if text == 'print':
    for _ in range(1 << 6):
      print('x' * (1 << 20))
      print('x' * (1 << 20), file=sys.stderr)
  if text == 'fill':
    'x' * (1 << 40)
  if text == 'leave':
    os._exit(0)
  if text == 'exit':
    sys.exit()
  values = {'nan': float('nan'), 'list': [1], 'text': '1', 'two': 2}
  values['none'] = None
  if text in values:
    return values[text]
  if text == 'tests':
    return problem.tests.inputs == ('1',)
  if problem.answer == 'inverse':
    return 1.0 / int(text)
  return text == problem.answer
"""
_INVERSE = Problem(id='a', question='', answer='inverse')


@pytest.fixture(scope='module')
def name(tmp_path_factory) -> str:
  path = tmp_path_factory.mktemp('reward') / 'math-reward.py'
  path.write_text(_FUNCTION)
  return f'{path}:reward'


@pytest.fixture(scope='module')
def pool(name):
  with Pool(VerifyConfig(workers=1, timeout=10), (name,)) as pool:
    yield pool


@pytest.mark.parametrize(
  ('text', 'expected', 'reason'),
  [
    ('1', 1.0, 'rewarded'),
    ('4', 0.25, 'rewarded'),
    ('0', None, 'ZeroDivisionError in math-reward.py, line 23'),
    ('nan', None, 'not in [0, 1]'),
    ('two', None, 'not in [0, 1]'),
    ('text', None, 'not in [0, 1]'),
    ('list', None, 'TypeError in math-reward.py'),
    ('none', None, 'no reward'),
    ('fill', None, 'MemoryError in math-reward.py, line 11'),
    ('print', None, 'ValueError in math-reward.py, line 23'),
    ('exit', None, 'no verdict in time, twice'),
    ('leave', None, 'no verdict in time, twice'),
  ],
)
def test_what_a_function_does_is_a_verdict(text, expected, reason, name, pool):
  verdict = pool.submit(Request(name, text, problem=_INVERSE)).result()
  assert (verdict.reward, verdict.reason) == (expected, reason)
  assert verdict.verifier == reward.version(name)


def test_a_function_sees_the_problem(name, pool):
  tests = types.Tests('stdin', inputs=('1',), outputs=('2',))
  for problem, text, expected in (
    (Problem('a', '', answer='b'), 'b', 1.0),
    (Problem('a', '', answer='c'), 'b', 0.0),
    (Problem('a', '', tests=tests), 'tests', 1.0),
  ):
    verdict = pool.submit(Request(name, text, problem=problem)).result()
    assert verdict.reward == expected


def test_a_function_that_hangs_costs_its_own_deadline(name):
  with Pool(VerifyConfig(workers=1, timeout=1), (name,)) as pool:
    late = pool.submit(Request(name, 'hang', problem=_INVERSE))
    soon = pool.submit(Request(name, '1', problem=_INVERSE))
    assert (late.result().reward, soon.result().reward) == (None, 1.0)


def test_what_it_prints_goes_nowhere(name):
  program = f"""
from rest.types import Problem
from rest.verify import Pool, Request, VerifyConfig
with Pool(VerifyConfig(workers=1, timeout=10), ({name!r},)) as pool:
  problem = Problem('a', '', answer='inverse')
  pool.submit(Request({name!r}, 'print', problem=problem)).result()
"""
  command = [sys.executable, '-c', program]
  done = subprocess.run(command, capture_output=True, check=True)
  assert done.stdout + done.stderr == b''


@pytest.mark.parametrize(
  ('code', 'match'),
  [
    ('x = 1\n\ny = 1 / 0\n', r'r\.py, line 3: ZeroDivisionError: division'),
    ('def reward(:\n', r'r\.py, line 1: SyntaxError'),
    ('def other(p, t): pass\n', r'r\.py defines no reward\.'),
    ('reward = 3\n', 'must be a function of problem and text, got 3'),
    (None, r"task\.verifier='.*': there is no file .*r\.py"),
  ],
)
def test_a_bad_file_is_an_error_before_any_work(code, match, tmp_path):
  (tmp_path / 'train.jsonl').write_text('{"question": "a"}\n' * 2)
  if code is not None:
    (tmp_path / 'r.py').write_text(code)
  config = TaskConfig(
    'jsonl', str(tmp_path), num_test=1, verifier=f'{tmp_path}/r.py:reward'
  )
  with pytest.raises(ValueError, match=match):
    tasks.make(config)
