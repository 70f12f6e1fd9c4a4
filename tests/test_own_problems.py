"""The files and commands of docs/own_problems.md, run as they stand there."""

import gzip
import json
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PAGE = (ROOT / 'docs/own_problems.md').read_text()
BLOCK = re.compile(r'(?:`(\w+\.py)`[^\n]*\n\n)?```(python|sh)\n(.*?)```', re.S)
TINY = (
  '--config.task.num_train=9',
  '--config.task.num_validation=4',
  '--config.task.num_test=8',
  '--config.estep.num_samples=4',
  '--config.em.iterations=1',
  '--config.sampling.rows=16',
  '--config.sampling.max_tokens=96',
  '--config.eval.num_samples=0',
  '--config.eval.pass_k=()',
  '--config.mstep.rows=2',
)


@pytest.fixture(scope='module')
def here(tmp_path_factory) -> pathlib.Path:
  """A folder with the page's files, and configs/ and the model as in ours."""
  folder = tmp_path_factory.mktemp('own')
  for name in ('configs', 'rest'):
    (folder / name).symlink_to(ROOT / name)
  for name, language, text in BLOCK.findall(PAGE):
    if language == 'python':
      (folder / name).write_text(text)
  return folder


def run(
  here: pathlib.Path, which: str, *flags: str
) -> subprocess.CompletedProcess[str]:
  """Runs the commands of the block that has a word, in little."""
  blocks = [text for _, kind, text in BLOCK.findall(PAGE) if kind == 'sh']
  text = next(text for text in blocks if which in text)
  done = None
  for line in text.replace('\\\n', ' ').splitlines():
    program, *words = shlex.split(line)
    assert program == 'python'
    small = TINY if 'rest.main' in words else ()
    done = subprocess.run(
      [sys.executable, *words, *small, *flags],
      cwd=here,
      capture_output=True,
      text=True,
      check=False,
    )
  assert done is not None
  return done


def samples(workdir: pathlib.Path) -> list[dict]:
  parts = sorted((workdir / 'iteration_1/parts').glob('part-*.jsonl.gz'))
  lines = b''.join(gzip.decompress(part.read_bytes()) for part in parts)
  lines = lines.splitlines()
  return [json.loads(line) for line in lines]


def test_a_class_runs_the_loop_and_is_held_to_its_file(here):
  done = run(here, 'marbles.py:Marbles')
  assert done.returncode == 0, done.stderr
  rows = samples(here / 'runs/marbles')
  assert {row['problem'].split('/')[1] for row in rows} == {'train'}
  assert len(rows) >= 4
  code = here / 'marbles.py'
  code.write_text(code.read_text() + '# Another file.\n')
  again = run(here, 'marbles.py:Marbles')
  assert again.returncode == 2
  assert 'the data changed' in again.stderr


def test_records_with_a_function_learn_from_a_batch_of_vllm(here):
  subprocess.run([sys.executable, 'seats.py'], cwd=here, check=True)
  records = (here / 'seats.jsonl').read_text().splitlines()
  lines = []
  for index, record in enumerate(map(json.loads, records)):
    body = {
      'choices': [
        {'message': {'content': text}, 'finish_reason': 'stop'}
        for text in (f'#### {record["empty"]}', '#### -1')
      ]
    }
    reply = {'custom_id': f'train/{index}', 'response': {'body': body}}
    lines.append(json.dumps(reply) + '\n')
  (here / 'answers.jsonl').write_text(''.join(lines))
  done = run(
    here,
    'seats.jsonl',
    '--config.em.source=samples_of',
    '--config.em.samples_of=answers.jsonl',
  )
  assert done.returncode == 0, done.stderr
  rewards = [row['reward'] for row in samples(here / 'runs/seats')]
  assert rewards == [1.0, 0.0] * (len(rewards) // 2)
  kept = (here / 'runs/seats/iteration_1/dataset.jsonl').read_text()
  assert len(kept.splitlines()) == len(rewards) // 2 > 0
