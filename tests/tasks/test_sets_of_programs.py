"""Problem sets of programs: prompts, programs and hidden tests."""

import dataclasses
import gzip
import json
import subprocess
import sys

from excerpts import DATA, by_id, copy_with, make

from rest import tasks
from rest.verify import program as verify_program


def test_mbpp_is_split_by_task_id():
  task = make('mbpp', num_validation=2)
  ids = {s: [int(p.id[5:]) for p in task.problems(s)] for s in tasks.SPLITS}
  assert ids == {
    'train': [601, 602, 704, 872, 912],
    'validation': [511, 512],
    'test': [11, 12, 216, 248, 367],
  }


def test_mbpp_asks_in_the_words_of_its_readme():
  task = make('mbpp', num_validation=2)
  lines = (DATA / 'mbpp' / 'mbpp.jsonl').read_text().splitlines()
  records = {r['task_id']: r for r in map(json.loads, lines)}
  shots = ''
  for number in (2, 3, 4):
    record = records[number]
    code = record['code'].replace('\r\n', '\n').strip()
    tests = '\n'.join(record['test_list'])
    shots += (
      'You are an expert Python programmer, and here is your task:'
      f' {record["text"]} Your code should pass these tests:\n\n{tests}\n'
      f'[BEGIN]\n{code}\n[DONE]\n\n'
    )
  assert task.prefix == shots
  problem = task.problems('test')[0]
  assert task.question(problem).endswith('\n[BEGIN]\n')
  assert task.prefix.startswith(task.question(problem)[:60])


def test_mbpp_programs_have_no_carriage_returns_and_setup_comes_first():
  task = make('mbpp', num_validation=2)
  problem = by_id(task)['mbpp/367']
  assert problem.tests
  assert problem.tests.script.startswith('root = Node(1)')
  assert problem.tests.script.splitlines()[-1].startswith('assert ')
  for problem in by_id(task).values():
    assert '\r' not in task.target(problem) + task.question(problem)
    program = task.program(problem, task.target(problem))
    scope: dict = {}
    exec(program, scope)
    assert problem.tests
    exec(problem.tests.script, scope)


def test_mbpp_plus_asks_by_default_only_what_mbpp_tests():
  ids = [p.id for p in make('mbpp_plus').problems('test')]
  assert sorted(ids) == ['mbpp/389', 'mbpp/455']
  every = make('mbpp_plus', split='all').problems('test')
  assert {p.id for p in every} - set(ids) == {'mbpp/793'}


def test_mbpp_functions_are_named_by_their_tests():
  mbpp = make('mbpp', num_validation=0)
  plus = make('mbpp_plus', split='all')
  names = {
    problem.id: problem.tests.entry_point
    for task in (mbpp, plus)
    for problem in by_id(task).values()
    if problem.tests
  }
  assert all(names.values())
  assert names['mbpp/11'] == 'remove_Occ'
  assert names['mbpp/793'] == 'last'
  assert names['mbpp/912'] == 'lobb_num'  # `assert int(lobb_num(5, 3)) == 35`


def test_humaneval_programs_are_prompt_and_completion():
  task = make('humaneval')
  for problem in task.problems('test'):
    assert problem.tests
    assert task.question(problem) == problem.question
    for completion in (
      task.target(problem),
      # As a chat model would put it.
      f'Sure:\n```python\n{problem.question}{problem.solution}```\nDone.',
    ):
      scope: dict = {}
      exec(task.program(problem, completion), scope)
      exec(problem.tests.script, scope)
      scope['check'](scope[problem.tests.entry_point])


def test_a_completion_cannot_redefine_the_helper_that_its_test_calls():
  task = make('humaneval')
  problem = by_id(task)['HumanEval/38']
  hasty = '    return s\n\ndef encode_cyclic(s):\n    return s\n'
  for completion, reward in ((task.target(problem), 1), (hasty, 0)):
    assert problem.tests
    program = task.program(problem, completion)
    assert verify_program.run(program, problem.tests).reward == reward


def test_humaneval_plus_has_tests_that_check_and_the_same_programs():
  task = make('humaneval_plus')
  for problem in task.problems('test'):
    assert problem.tests
    assert 'def check(candidate):' in problem.tests.script
    program = task.program(problem, task.target(problem))
    assert program == f'{problem.question}{problem.solution}'
    assert f'def {problem.tests.entry_point}(' in program


def test_apps_keeps_the_level_that_was_asked_for():
  assert {p.level for p in by_id(make('apps')).values()} == {'introductory'}
  assert len(by_id(make('apps', split='all'))) == 6
  interview = make('apps', split='interview')
  assert [p.level for p in interview.problems('validation')] == ['interview']


def test_apps_tests_are_standard_input_or_calls():
  problems = by_id(make('apps'))
  codewars = problems['apps/test/4184'].tests
  leetcode = problems['apps/train/2404'].tests
  assert codewars and leetcode
  # Results stand in lists of one in Codewars' problems only.
  assert codewars.kind == leetcode.kind == 'call'
  assert codewars.entry_point == 'is_prime'
  assert codewars.inputs[0] == '[1]'
  assert codewars.outputs[:2] == ('false', 'true')
  assert leetcode.outputs == ('9',)
  stdin = [p.tests for p in problems.values() if p.subject == 'stdin']
  assert stdin
  for tests in stdin:
    assert tests
    assert len(tests.inputs) == len(tests.outputs) > 0


def test_apps_is_the_same_from_folders_and_from_lines(tmp_path):
  names = {
    'question': 'question.txt',
    'solutions': 'solutions.json',
    'input_output': 'input_output.json',
    'starter_code': 'starter_code.py',
  }
  for split, file in (('train', 'train.jsonl.gz'), ('test', 'test.jsonl')):
    data = (DATA / 'apps' / file).read_bytes()
    if file.endswith('.gz'):
      data = gzip.decompress(data)
    for record in map(json.loads, data.splitlines()):
      folder = tmp_path / split / f'{record["problem_id"]:04d}'
      folder.mkdir(parents=True)
      for field, name in names.items():
        if record[field]:
          (folder / name).write_text(record[field])
      metadata = {k: record[k] for k in ('difficulty', 'url')}
      (folder / 'metadata.json').write_text(json.dumps(metadata))
  assert by_id(make('apps', tmp_path)) == by_id(make('apps'))


def test_apps_examples_are_right_and_in_the_form_of_the_question():
  task = make('apps')
  _, stdin, call = task.prefix.split('\nQUESTION:\n')
  program = stdin.split('\nANSWER:\n')[1]
  done = subprocess.run(
    [sys.executable, '-c', program], input='12 30\n', capture_output=True,
    text=True, check=True,
  )  # fmt: skip
  assert done.stdout == '3\n'
  scope: dict = {}
  exec(call.split('\nANSWER:\n')[1], scope)
  words = ['plum', 'fig', 'banana', 'pear']
  assert scope['longer_words'](words, 3) == ['plum', 'pear', 'banana']
  for problem in by_id(task).values():
    question = task.question(problem)
    assert question.startswith('\nQUESTION:\n')
    assert question.endswith(' format\n\nANSWER:\n')
    assert ('Call-Based' in question) == (problem.subject == 'call')


def test_apps_results_of_leetcode_may_be_lists_of_one(tmp_path):
  def wrap(records):
    (record,) = (r for r in records if r['problem_id'] == 2404)
    cases = json.loads(record['input_output'])
    record['input_output'] = json.dumps({**cases, 'outputs': [[9]]})

  copy_with('apps/train.jsonl.gz', tmp_path, wrap)
  copy_with('apps/test.jsonl', tmp_path, lambda records: None)
  problem = by_id(make('apps', tmp_path))['apps/train/2404']
  assert problem.tests and problem.tests.outputs == ('[9]',)


def _rewards(task, problem, entry_point, programs) -> list[float | None]:
  tests = dataclasses.replace(
    problem.tests, entry_point=entry_point, inputs=('[2, 3]',), outputs=('8',)
  )
  texts = (task.program(problem, text) for text in programs)
  return [verify_program.run(text, tests).reward for text in texts]


def test_apps_functions_find_what_leetcode_imports_and_pythons_own_names():
  task = make('apps')
  problem = by_id(task)['apps/train/2404']
  assert problem.tests
  solution = task.program(problem, task.target(problem))
  assert 'List' in solution and 'import' not in solution
  assert verify_program.run(solution, problem.tests).reward == 1
  right = [
    'def f(a, n): return int(sqrt(gcd(a * 32, 64))) * len(deque([0]))',
    'def f(a, n): return pow(a, n, 10)',
    'def f(a, n): return pow(a, 100 * n) - pow(a, 100 * n) + 8',
    'def f(a, n): return pow(2, 70) % 9 and (1 << 70) + 8 - pow(2, 70)',
    '"""Text."""\nfrom __future__ import annotations\n'
    'def f(a: Missing, n): return a ** n',
    '\ndef f(a, n):\n  import sys\n  return sys._getframe().f_lineno + 4',
    'def merge(a, n): return a ** n\nf = merge',
  ]
  assert _rewards(task, problem, 'f', right) == [1.0] * len(right)
  # A method may have the name of something imported.
  method = 'class Solution:\n  def merge(self, a, n): return a ** n'
  assert _rewards(task, problem, 'merge', [method]) == [1.0]
  assert _rewards(task, problem, 'comb', ['x = 3']) == [0.0]


def test_apps_human_solutions_are_the_first_that_compile(tmp_path):
  def break_first(records):
    solutions = ['print "2"', 'nonlocal x', "print('\\d')", 'print(4)']
    records[0]['solutions'] = json.dumps(solutions)

  copy_with('apps/train.jsonl.gz', tmp_path, break_first)
  copy_with('apps/test.jsonl', tmp_path, lambda records: None)
  solutions = {p.solution for p in by_id(make('apps', tmp_path)).values()}
  assert "print('\\d')" in solutions


def test_apps_reads_integers_beyond_pythons_limit(tmp_path):
  limit = sys.get_int_max_str_digits()

  def lengthen(records):
    digits = '7' * (limit + 1)
    records[0]['input_output'] = (
      f'{{"fn_name": "f", "inputs": [[{digits}]], "outputs": [{digits}]}}'
    )
    records[0]['starter_code'] = 'class Solution:'

  copy_with('apps/train.jsonl.gz', tmp_path, lengthen)
  copy_with('apps/test.jsonl', tmp_path, lambda records: None)
  problems = by_id(make('apps', tmp_path)).values()
  longest = max(len(p.tests.outputs[0]) for p in problems if p.tests)
  assert longest == limit + 1
  assert sys.get_int_max_str_digits() == limit


def test_apps_leaves_out_what_cannot_be_used(tmp_path):
  def strip(records):
    records[0]['input_output'] = ''
    records[1]['solutions'] = ''

  copy_with('apps/train.jsonl.gz', tmp_path, strip)
  copy_with('apps/test.jsonl', tmp_path, lambda records: None)
  assert len(by_id(make('apps', tmp_path))) == len(by_id(make('apps'))) - 2
