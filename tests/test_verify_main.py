"""The command line of the verifiers."""

import json
import subprocess
import sys

from rest import store, tasks
from rest.keep import EStepConfig, keep
from rest.types import Completion, Graded, Verdict


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


def test_a_malformed_line_is_numbered(tmp_path):
  file = tmp_path / 'samples.jsonl'
  file.write_text('{"text": "3", "gold": "3"}\n{"text": "3"}\n')
  done = _run('grade', file)
  assert done.returncode == 1
  assert f"{file}, line 2: KeyError('gold')" in done.stderr


def test_regrading_tells_which_samples_enter_and_leave(tmp_path):
  config = {'task.name': 'arithmetic', 'task.num_train': 2}
  store.write_json(tmp_path / 'run.json', {'config': config})
  task = tasks.make(tasks.TaskConfig(name='arithmetic', num_train=2))
  problem = task.problems('train')[0]
  rewards = {'right': 0.0, 'wrong': 1.0, 'same': 1.0}
  texts = [f'#### {problem.answer}', '#### -1', f'#### {problem.answer}.0']
  rows = [
    Graded(
      problem.id,
      sample,
      'prompt',
      Completion(text, (1,), (0.0,), finished=True),
      Verdict(reward, 'old', 'math-0'),
    )
    for sample, (text, reward) in enumerate(
      zip(texts, rewards.values(), strict=True)
    )
  ]
  folder = tmp_path / 'iteration_1'
  store.Parts(folder / 'parts').write(0, rows)
  store.write_dataset(folder / 'dataset.jsonl', keep(rows, EStepConfig()))
  before = (folder / 'dataset.jsonl').read_bytes()
  done = _run('regrade', tmp_path)
  assert done.stdout.splitlines() == [
    f'may enter {problem.id} sample 0: incorrect (old) -> correct (same text)',
    f'leaves    {problem.id} sample 1: correct (old) -> incorrect (different)',
    'iteration_1: 3 samples, 1 may enter, 1 leaves',
  ]
  assert (folder / 'dataset.jsonl').read_bytes() == before
