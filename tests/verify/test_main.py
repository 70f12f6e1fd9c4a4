"""The command line of the verifiers."""

import json
import subprocess
import sys

import pytest
import small_run

from rest import tasks
from rest.e_step.choose import to_kept
from rest.model import tokenizer
from rest.run import store
from rest.run.dataset import to_lines
from rest.types import Completion, Graded, Verdict
from rest.verify import __main__ as verify_main

CODEC = tokenizer.load(small_run.BASE)


def _run(*arguments: object) -> subprocess.CompletedProcess[str]:
  command = [sys.executable, '-m', 'rest.verify', *map(str, arguments)]
  return subprocess.run(command, capture_output=True, text=True)


def test_a_file_is_graded_in_order(tmp_path):
  file, out = tmp_path / 'samples.jsonl', tmp_path / 'verdicts.jsonl'
  lines = [
    {'text': r'It is \boxed{0.5}.', 'gold': '1/2'},
    {'text': 'The answer is 3.', 'gold': '1/2'},
    {'text': 'The answer is 3.', 'gold': ''},
  ]
  file.write_text('\n'.join(map(json.dumps, lines)))
  done = _run('grade', file, f'--out={out}')
  assert done.stdout == '1 correct, 1 incorrect, 1 unknown\n'
  verdicts = [json.loads(line) for line in out.read_text().splitlines()]
  assert [verdict['reward'] for verdict in verdicts] == [1.0, 0.0, None]


_CALL = {
  'kind': 'call',
  'entry_point': 'f',
  'inputs': ['[1]'],
  'outputs': ['1'],
}


@pytest.mark.parametrize(
  ('verifier', 'line', 'expected'),
  [
    ('math', {'text': '3'}, "field 'gold' is missing; there are ['text']"),
    ('math', {'text': '3', 'gold': 3}, "field 'gold' must be text, got 3"),
    (
      'math',
      {'text': '3', 'gold': None},
      "field 'gold' must be text, got None",
    ),
    (
      'math',
      {'text': None, 'gold': '3'},
      "field 'text' must be text, got None",
    ),
    ('exact', {'text': ['3'], 'gold': '3'}, "field 'text' must be text, got"),
    (
      'exact',
      {'text': '3', 'gold': {'a': 1}},
      "field 'gold' must be text, got",
    ),
    ('math', ['3', '3'], "must be a JSON object, got ['3', '3']"),
    ('math', '3', "must be a JSON object, got '3'"),
    ('program', {'text': '1'}, "field 'tests' is missing; there are ['text']"),
    ('program', {'text': '1', 'tests': 3}, "'tests' must be an object, got"),
    ('program', {'text': '1', 'tests': '{}'}, "field 'kind' is missing"),
    ('program', {'text': '1', 'tests': {}}, "tests: field 'kind' is missing"),
    (
      'program',
      {'text': '1', 'tests': {'kind': 'unit'}},
      "tests: Tests.kind must be one of ('assert', 'stdin', 'call'), got 'u",
    ),
    (
      'program',
      {'text': '1', 'tests': {'kind': 'assert', 'code': ''}},
      "tests: fields are ('kind', 'script', 'entry_point', 'preamble', "
      "'inputs', 'outputs')"
      ", not ['code']",
    ),
    (
      'program',
      {'text': '1', 'tests': {'kind': 'assert', 'script': ['assert 1']}},
      "tests: field 'script' must be text, got ['assert 1']",
    ),
    (
      'program',
      {'text': '1', 'tests': {**_CALL, 'inputs': [[1]]}},
      "tests: field 'inputs' must list only text",
    ),
    (
      'program',
      {'text': '1', 'tests': {**_CALL, 'inputs': ['[a]']}},
      "tests: Tests.inputs must be JSON, got '[a]'",
    ),
    (
      'program',
      {'text': '1', 'tests': {**_CALL, 'outputs': []}},
      'tests: Tests.inputs and outputs must be as many, and not none; got 1',
    ),
  ],
)
def test_a_malformed_line_is_told_with_its_number(
  verifier, line, expected, tmp_path, capsys
):
  file = tmp_path / 'samples.jsonl'
  whole = {'text': '3', 'gold': '3', 'tests': _CALL}
  file.write_text(f'{json.dumps(whole)}\n\n{json.dumps(line)}\n')
  with pytest.raises(SystemExit, match='2'):
    verify_main.main(['grade', str(file), f'--verifier={verifier}'])
  said = capsys.readouterr().err
  assert said.startswith(f'error: {file}, line 3')
  assert expected in said


def test_regrading_tells_which_samples_enter_and_leave(tmp_path):
  estep = {'estep.num_samples': 6, 'estep.cap': 2}
  config = {'task.name': 'arithmetic', 'task.num_train': 2, **estep}
  config['model.path'] = small_run.BASE
  record = {'config': config, 'data': '', 'base': '', 'leaks': []}
  store.write_json(tmp_path / 'run.json', record)
  task = tasks.make(tasks.TaskConfig(name='arithmetic', num_train=2))
  first, second = task.problems('train')
  right, wrong = f'#### {first.answer}', '#### -1'
  samples = [
    (wrong, 1.0),  # Leaves.
    (right, 0.0),  # Enters.
    (f'{right}.0', 1.0),  # Stays.
    (f'so {right}', 0.0),  # Right, but the cap leaves no room.
    (f'{right} ', 1.0),  # Leaves: an equal text comes before it now.
    (wrong, 0.0),
  ]
  rows = [_graded(first.id, i, *sample) for i, sample in enumerate(samples)]
  other = [_graded(second.id, 0, wrong, None)]
  folder = tmp_path / 'iteration_1'
  store.Parts(folder / 'parts').write(0, rows)
  store.Parts(folder / 'parts').write(1, other)
  kept = [to_kept(rows[i]) for i in (0, 2, 4)]
  path = folder / 'dataset.jsonl'
  path.write_text(to_lines(kept, CODEC, path))
  # As an older version left it: the tokens of a row lack its last letter.
  lines = path.read_text().splitlines()
  row = json.loads(lines[1])
  lines[1] = json.dumps(row | {'tokens': row['tokens'][:-2]})
  path.write_text('\n'.join(lines) + '\n')
  before = path.read_bytes()
  done = _run('regrade', tmp_path)
  assert done.stdout.splitlines() == [
    f'leaves {first.id} sample 0: correct (old) -> incorrect (different)',
    f'enters {first.id} sample 1: incorrect (old) -> correct (same text)',
    f'leaves {first.id} sample 4: still correct, unlike others of its problem',
    'iteration_1: of 7 verdicts 4 differ; of 3 samples kept 2 leave, and '
    '1 enter',
    'iteration_1: the tokens of 0 of 7 samples, and of 1 of 3 in the dataset, '
    'do not say what was judged',
  ]
  assert path.read_bytes() == before


def _graded(
  problem_id: str, sample: int, text: str, reward: float | None
) -> Graded:
  tokens = (*CODEC.encode(text, follows=True), CODEC.eos[0])
  completion = Completion(text, tokens, (0.0,) * len(tokens), 'token')
  verdict = Verdict(reward, 'old', 'math-0')
  return Graded(problem_id, sample, 'prompt', completion, verdict)
