"""Problem sets: original files in, prompts and tests out."""

import gzip
import json
import pathlib
import subprocess
import sys

import pytest
from excerpts import DATA, by_id, copy_with, make

from rest import tasks
from rest.tasks.sets import bbh
from rest.tasks.sets.math import STOP, last_boxed
from rest.verify import exact
from rest.verify.math import is_equivalent


def test_gsm8k_answers_follow_the_mark_and_lose_commas():
  problems = by_id(make('gsm8k'))
  answers = [p.answer for p in problems.values()]
  assert all(a and a.lstrip('-').isdigit() for a in answers)
  assert any(a and a.startswith('-') for a in answers)
  with_comma = [p for p in problems.values() if ',' in (p.solution or '')[-9:]]
  assert with_comma
  assert all(',' not in (p.answer or '') for p in with_comma)


def test_gsm8k_targets_read_like_the_examples_of_the_prompt():
  task = make('gsm8k')
  assert task.prefix.count('Question: ') == 8
  assert task.prefix.count('The answer is ') == 8
  for problem in task.problems('train'):
    target = task.target(problem)
    assert target.startswith(' ')
    assert target.endswith(f'\nThe answer is {problem.answer}.')
    assert '<<' not in target
    assert '####' not in target
    assert not any(stop in target for stop in task.stop)
  zero_shot = make('gsm8k', prompt='zero_shot')
  assert zero_shot.prefix == ''
  first = zero_shot.problems('test')[0]
  assert zero_shot.question(first) == task.question(first)


@pytest.mark.parametrize(
  ('solution', 'answer'),
  [
    (r'so $\boxed{\frac{1}{2}}$.', r'\frac{1}{2}'),
    (r'first \boxed{1}, then \boxed{2}', '2'),
    (r'$\boxed 9$ is it', '9'),
    (r'\fbox{7}', '7'),
    (r'\boxed{\{1, 2\}}', r'\{1, 2\}'),
    (r'\boxed{unclosed', None),
    ('none', None),
  ],
)
def test_answers_of_math_are_what_the_last_box_holds(solution, answer):
  assert last_boxed(solution) == answer


def test_math_reads_odd_records_as_its_authors_meant_them():
  problems = by_id(make('math'))
  # Problems as \boxed{}, with 0 in the text; as `\boxed 2`; as 'Level ?'.
  assert problems['math/train/number_theory/7115'].answer == '0'
  assert problems['math/train/algebra/24014'].answer == '2'
  assert problems['math/train/geometry/377'].level == '?'
  assert problems['math/train/geometry/377'].subject == 'Geometry'


def test_math_is_the_same_from_a_tree_and_from_lines(tmp_path):
  for split in ('train', 'test'):
    lines = gzip.decompress((DATA / 'math' / f'{split}.jsonl.gz').read_bytes())
    for record in map(json.loads, lines.splitlines()):
      path = tmp_path / record.pop('unique_id')
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_text(json.dumps(record))
  tree, lines = make('math', tmp_path), make('math')
  assert by_id(tree) == by_id(lines)


def test_prm800k_tests_on_math500_and_trains_on_the_rest():
  original, prm800k = (
    make('math'),
    make('math', split='prm800k'),
  )
  every = by_id(original)
  test = {p.id for p in prm800k.problems('test')}
  assert len(test) == 3
  assert test < {p.id for p in original.problems('test')}
  ids = [p.id for s in tasks.SPLITS for p in prm800k.problems(s)]
  assert sorted(ids) == sorted(every)
  assert by_id(prm800k) == every
  alone = make('math', split='math500')
  assert alone.problems('test') == prm800k.problems('test')
  assert alone.problems('train') == alone.problems('validation') == []


def test_math_targets_continue_the_minerva_prompt():
  task = make('math')
  assert task.prefix.count('Problem:\n') == 4
  assert task.prefix.count('I hope it is correct.\n\n') == 4
  shots = by_id(task)['math/train/algebra/256']
  # The third example is this problem: a target has exactly its form.
  text = task.question(shots) + task.target(shots)
  assert text.replace(' ', '') in task.prefix.replace(' ', '')


@pytest.mark.parametrize('name', ['math', 'hungarian_exam'])
def test_answers_to_math_end_where_the_examples_do(name):
  task = make(name)
  assert task.stop == STOP
  for example in task.prefix.removesuffix('\n\n').split('\n\nProblem:\n'):
    assert example.endswith(STOP[0])
    assert example.count(STOP[0]) == 1


def test_answers_to_math_are_found_without_the_phrase_behind_them():
  task = make('math')
  for problem in task.problems('train'):
    solution, phrase, rest = task.target(problem).partition(STOP[0])
    assert (phrase, rest) == (STOP[0], '')
    assert problem.answer
    assert is_equivalent(problem.answer, solution)


def test_bbh_examples_reason_or_do_not():
  for name in bbh.TASKS:
    cot, direct = bbh.shots(name, 'cot'), bbh.shots(name, 'direct')
    assert 'canary' not in cot
    for text in (cot, direct):
      assert text.endswith('\n\n')
      assert text.count('\nQ: ') == text.count('\nA: ') == 3
    assert cot.count('So the answer is ') == 3
    assert 'So the answer is' not in direct
    assert "Let's think" not in direct
    answers = [part.split('\n')[0] for part in direct.split('\nA: ')[1:]]
    for answer in answers:
      assert f'So the answer is {answer}.' in cot


def test_a_direct_answer_of_bbh_ends_with_its_line():
  # As Qwen2.5-Coder-1.5B-Instruct answers.
  text = ' No\nTo determine if the instructions return to the starting point'
  direct = make('bbh', split='navigate', prompt='direct')
  said = text[: min(text.index(stop) for stop in direct.stop)]
  assert exact.judge('No', exact.extract(said)).reward == 1.0
  for part in direct.prefix.split('\nA: ')[1:]:
    answer, stop, rest = part.partition(direct.stop[0])
    assert answer in ('Yes', 'No')
    assert stop
    assert rest.startswith('\n')


def test_bbh_prompts_are_the_same_with_one_task_and_with_all():
  one = make('bbh', split='word_sorting')
  problem = one.problems('test')[0]
  every = make('bbh')
  assert every.prefix == ''
  assert every.question(problem) == one.prefix + one.question(problem)
  assert one.question(problem).endswith("\nA: Let's think step by step.\n")
  direct = make('bbh', split='word_sorting', prompt='direct')
  assert direct.question(problem).endswith('\nA:')


def test_bbh_reads_its_original_json(tmp_path):
  lines = (DATA / 'bbh' / 'word_sorting.jsonl').read_text().splitlines()
  whole = {'canary': '', 'examples': [json.loads(line) for line in lines]}
  (tmp_path / 'bbh').mkdir()
  (tmp_path / 'bbh' / 'word_sorting.json').write_text(json.dumps(whole))
  read = make('bbh', tmp_path, split='word_sorting').problems('test')
  assert read == make('bbh', split='word_sorting').problems('test')


def test_the_exam_has_no_answers_and_is_graded_on_a_sheet(tmp_path):
  task = make('hungarian_exam')
  problems = task.problems('test')
  assert [p.answer for p in problems] == [None, None, None]
  assert task.prefix.startswith('Problem:\n')
  rows = [
    {'problem': problems[1].id, 'text': 'Second, "quoted".'},
    {'problem': problems[0].id, 'text': 'First,\nin two lines.'},
  ]
  for index, row in enumerate(rows):
    (tmp_path / f'part-{index:06d}.jsonl').write_text(json.dumps(row))
  subprocess.run(
    [
      sys.executable, '-m', 'rest.tasks', 'sheet', 'hungarian_exam',
      f'--path={DATA / "hungarian_exam"}', f'--samples={tmp_path}',
      f'--out={tmp_path / "sheet.csv"}',
    ],
    check=True, capture_output=True,
  )  # fmt: skip
  sheet = (tmp_path / 'sheet.csv').read_text()
  assert sheet.startswith(
    'id,problem,answer,points,of,remark\nhungarian_exam/0'
  )
  assert sheet.index('First,\nin two lines.') < sheet.index(
    '"Second, ""quoted"'
  )


@pytest.mark.parametrize('name', ['gsm8k', 'math', 'apps'])
def test_validation_is_carved_from_train_the_same_way_every_time(name):
  task = make(name, num_validation=2)
  train, held_out = task.problems('train'), task.problems('validation')
  published = make(name, num_validation=0).problems('train')
  assert len(held_out) == 2
  assert sorted(p.id for p in train + held_out) == sorted(
    p.id for p in published
  )
  assert held_out == make(name, num_validation=2).problems('validation')
  larger = make(name, num_validation=3).problems('validation')
  assert {p.id for p in held_out} < {p.id for p in larger}
  seeds = [
    tuple(p.id for p in make(name, num_validation=2, seed=s).problems('train'))
    for s in range(5)
  ]
  assert len(set(seeds)) > 1


def test_digests_change_with_anything_that_is_asked():
  digests = [
    tasks.digest(make('gsm8k')),
    tasks.digest(make('gsm8k', seed=1)),
    tasks.digest(make('gsm8k', prompt='zero_shot')),
    tasks.digest(make('gsm8k', num_test=2)),
  ]
  assert len(set(digests)) == 4
  assert tasks.digest(make('gsm8k')) == digests[0]


@pytest.mark.parametrize('name', sorted(tasks.TASKS))
def test_a_missing_path_says_what_to_download_and_where_it_goes(name, tmp_path):
  if name in ('arithmetic', 'countdown', 'jsonl'):
    return
  for path in (str(tmp_path), ''):
    task = tasks.make(tasks.TaskConfig(name, path))
    with pytest.raises(ValueError, match=r'Download .* set\s*task.path to'):
      task.problems('test')


@pytest.mark.parametrize(
  ('source', 'field', 'value'),
  [
    ('gsm8k/test.jsonl', 'question', None),
    ('gsm8k/test.jsonl', 'answer', 'no mark'),
    ('math/test.jsonl.gz', 'solution', 'no box'),
    ('math/test.jsonl.gz', 'type', 3),
    ('mbpp/mbpp.jsonl', 'task_id', '5'),
    ('mbpp/mbpp.jsonl', 'test_list', [1]),
    ('apps/test.jsonl', 'input_output', '{'),
    ('apps/test.jsonl', 'input_output', '{"inputs": ["1"], "outputs": []}'),
    ('humaneval/HumanEval.jsonl.gz', 'entry_point', None),
    ('hungarian_exam/test.jsonl', 'idx', None),
  ],
)
def test_a_malformed_record_names_file_line_and_field(
  source, field, value, tmp_path
):
  name = source.split('/')[0]

  def spoil(records):
    records[-1][field] = value
    if value is None:
      del records[-1][field]

  for file in (DATA / name).iterdir():
    (tmp_path / file.name).write_bytes(file.read_bytes())
  (tmp_path / pathlib.Path(source).name).unlink()
  copy_with(source, tmp_path, spoil)
  file = pathlib.Path(source).name.removesuffix('.gz')
  pattern = rf"{file}, line \d+: field '{field}'"
  with pytest.raises(ValueError, match=pattern):
    make(name, tmp_path, num_validation=0).problems('test')


def test_broken_files_are_named(tmp_path):
  def fails(data, match):
    (tmp_path / 'test.jsonl').write_bytes(data)
    with pytest.raises(ValueError, match=match):
      make('hungarian_exam', tmp_path).problems('test')

  fails(b'', r'test\.jsonl: no records')
  fails(b'{"problem": "x", "idx": 0}\n\n{\n', r'test\.jsonl, line 3: not JSON')
  fails(b'{"problem": "\xff"}', r'line 1: not JSON')
  fails(b'[1]', r'line 1: must be a JSON object')
  whole = (DATA / 'humaneval' / 'HumanEval.jsonl.gz').read_bytes()
  for data in (whole[:-40], b'not gzip'):
    (tmp_path / 'HumanEval.jsonl.gz').write_bytes(data)
    with pytest.raises(ValueError, match='not a whole gzip file'):
      make('humaneval', tmp_path).problems('test')


@pytest.mark.parametrize(
  ('name', 'fields', 'match'),
  [
    ('humaneval', {'prompt': 'few_shot'}, r"task\.prompt .*got 'few_shot'"),
    ('math', {'split': 'prm'}, r"task\.split of math .*got 'prm'"),
    ('bbh', {'split': 'sorting'}, r"task\.split of bbh .*got 'sorting'"),
    ('gsm8k', {'num_validation': 9}, r'task\.num_validation .* 8, .*got 9'),
    ('gsm8k', {'num_train': 8}, r'task\.num_train .*got 8'),
    ('gsm8k', {'num_test': -1}, r'task\.num_test .*got -1'),
  ],
)
def test_fields_that_do_not_fit_are_named(name, fields, match):
  with pytest.raises(ValueError, match=match):
    make(name, **fields).problems('train')
