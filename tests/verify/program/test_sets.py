"""The program verifier on the published sets, where REST_DATA names them."""

import collections
import concurrent.futures
import gzip
import json
import os
import pathlib
import queue
import re
import shutil
from collections.abc import Iterable

import pytest

from rest import tasks, types
from rest.verify.program.judge import ProgramConfig, ProgramJudge

_ROOT = os.environ.get('REST_DATA', '')
_LANES = 2

pytestmark = pytest.mark.skipif(not _ROOT, reason='REST_DATA is not set')


def _references(
  name: str, path: str = '', **fields
) -> list[tuple[types.Problem, str]]:
  """Returns all problems of a set, with the reference program of each."""
  path = path or f'{_ROOT}/{name}'
  task = tasks.make(tasks.TaskConfig(name, path, num_validation=0, **fields))
  problems = [p for split in tasks.SPLITS for p in task.problems(split)]
  return [(p, task.program(p, task.target(p))) for p in problems]


def _judge(
  cases: Iterable[tuple[types.Problem, str]], config: ProgramConfig
) -> dict[str, list[str]]:
  """Returns the ids of the problems by the reason of their verdict."""
  judges: queue.Queue = queue.Queue()
  for _ in range(_LANES):
    judges.put(ProgramJudge(config))

  def one(case: tuple[types.Problem, str]) -> tuple[str, str]:
    problem, program = case
    assert problem.tests
    judge = judges.get()
    try:
      verdict = judge.judge(program, problem.tests)
    finally:
      judges.put(judge)
    assert (verdict.reward == 1) == (verdict.reason == 'passed')
    return verdict.reason, problem.id

  found = collections.defaultdict(list)
  with concurrent.futures.ThreadPoolExecutor(_LANES) as threads:
    for reason, problem in threads.map(one, cases):
      found[reason].append(problem)
  for _ in range(_LANES):
    judges.get().close()
  return dict(found)


def test_every_humaneval_reference_passes():
  found = _judge(_references('humaneval'), ProgramConfig())
  assert {k: len(v) for k, v in found.items()} == {'passed': 164}


# Half a minute of CPU time each; `python -m bench.verify references` has them.
_SLOW = {
  'humaneval_plus': {15, 36, 59, 83, 94, 130, 139},
  'mbpp_plus': {84, 123, 255, 271, 392, 589, 592, 599, 603, 630},
}


@pytest.mark.parametrize(
  ('name', 'split', 'failing'),
  [
    # Its published test raises TypeError.
    ('humaneval_plus', '', {'HumanEval/32'}),
    ('mbpp_plus', 'all', set()),
  ],
)
def test_references_pass_the_tests_of_evalplus(name, split, failing):
  cases = [
    case
    for case in _references(name, split=split)
    if int(case[0].id.split('/')[1]) not in _SLOW[name]
  ]
  found = _judge(cases, ProgramConfig())
  passed = set(found.pop('passed'))
  assert {p.id for p, _ in cases} - passed == failing, found


def _mbpp() -> list[tuple[types.Problem, str]]:
  """Returns all of MBPP as it is published: with CRLF, and its prompts too."""
  with open(f'{_ROOT}/mbpp/mbpp.jsonl') as lines:
    records = [json.loads(line) for line in lines]
  return [(_mbpp_problem(record), record['code']) for record in records]


def _mbpp_problem(record: dict) -> types.Problem:
  script = '\n'.join(
    [
      record['test_setup_code'],
      *record['test_list'],
      *record['challenge_test_list'],
    ]
  )
  names = re.findall(r'^(?:def|class) (\w+)', record['code'], re.MULTILINE)
  tested = [n for n in re.findall(r'\w+', script) if n in names]
  return types.Problem(
    id=f'mbpp/{record["task_id"]}',
    question=record['text'],
    tests=types.Tests('assert', script, tested[0] if tested else ''),
  )


def test_every_mbpp_reference_passes():
  found = _judge(_mbpp(), ProgramConfig())
  assert {k: len(v) for k, v in found.items()} == {'passed': 974}


def _swapped(
  references: list[tuple[types.Problem, str]],
) -> list[tuple[types.Problem, str]]:
  """Gives each problem the next one's reference, by the name it wants."""
  cases = []
  for (problem, _), (other, program) in zip(
    references, references[1:] + references[:1], strict=True
  ):
    assert problem.tests and other.tests
    wanted, given = problem.tests.entry_point, other.tests.entry_point
    cases.append((problem, f'{program}\n{wanted} = {given}\n'))
  return cases


def test_no_humaneval_problem_takes_the_solution_of_another():
  # These tests compare the function with itself, as published.
  selfish = {'HumanEval/32', 'HumanEval/33', 'HumanEval/37', 'HumanEval/38'}
  found = _judge(_swapped(_references('humaneval')), ProgramConfig())
  assert set(found) <= {'passed', 'wrong', 'error', 'timeout'}
  assert set(found.get('passed', ())) <= selfish


def test_no_mbpp_problem_takes_the_solution_of_another():
  config = ProgramConfig(cpu_seconds=2, memory_mib=256)
  found = _judge(_swapped(_mbpp()), config)
  assert set(found) <= {'passed', 'wrong', 'error', 'timeout', 'memory'}
  # 667 counts letters as 666 does, and 729 adds lists as 728 does.
  assert found['passed'] == ['mbpp/666', 'mbpp/728']


# It solves nothing, but calls every name that its tests might use its own.
_FORGED = """
import builtins
class Yes:
  def __init__(self, *a, **k): pass
  def __call__(self, *a, **k): return self
  def __iter__(self): return iter([])
  def __bool__(self): return True
  def __eq__(self, other): return True
  def __hash__(self): return 0
  def __abs__(self): return 0
  def __sub__(self, other): return 0
ENTRY = lambda *a, **k: ANSWER
for name in dir(builtins):
  if name != 'ENTRY':
    globals()[name] = CALLED
"""


@pytest.mark.parametrize(
  ('answer', 'called'),
  [
    ('None', 'Yes'),
    ('Yes()', 'lambda *a, **k: Yes()'),
    ('[]', 'lambda *a, **k: []'),
    ('True', 'lambda *a, **k: True'),
  ],
)
@pytest.mark.parametrize(
  'name', ['humaneval', 'humaneval_plus', 'mbpp', 'mbpp_plus']
)
def test_no_published_test_takes_forged_builtins(name, answer, called):
  cases = [
    (
      problem,
      _FORGED.replace('ENTRY', problem.tests.entry_point)
      .replace('ANSWER', answer)
      .replace('CALLED', called),
    )
    for problem, _ in _references(name)
    if problem.tests
  ]
  found = _judge(cases, ProgramConfig())
  assert set(found) <= {'wrong', 'error'}


def _apps(name: str, tmp_path: pathlib.Path) -> list[types.Problem]:
  """Returns problems of APPS; the excerpts are from its training split."""
  suffix = ''.join(pathlib.Path(name).suffixes)
  for split in ('train', 'test'):
    shutil.copy(f'{_ROOT}/apps/{name}', tmp_path / f'{split}{suffix}')
  config = tasks.TaskConfig(
    'apps', str(tmp_path), num_validation=0, split='all'
  )
  return tasks.make(config).problems('test')


@pytest.mark.parametrize(
  ('name', 'unsolved'),
  [
    # The first three take several answers; the only solution of the last is
    # not a valid program.
    ('train_minival150.jsonl.gz', {'2023', '2398', '2400', '2036'}),
    ('train_coderl5.jsonl', set()),
  ],
)
def test_every_apps_problem_has_a_solution_that_passes(
  name, unsolved, tmp_path
):
  task = tasks.TASKS['apps'](
    tasks.TaskConfig('apps', '', num_validation=0, split='all')
  )
  opened = gzip.open if name.endswith('gz') else open
  with opened(f'{_ROOT}/apps/{name}', 'rt') as lines:
    records = {r['problem_id']: r for r in map(json.loads, lines)}
  cases = []
  for problem in _apps(name, tmp_path):
    number = pathlib.PurePath(problem.id).name
    solutions = json.loads(records[int(number)]['solutions'])[:3]
    cases += [(problem, task.program(problem, text)) for text in solutions]
  found = _judge(cases, ProgramConfig())
  solved = set(found['passed'])
  left = {p.id.split('/')[-1] for p, _ in cases if p.id not in solved}
  assert left == unsolved
