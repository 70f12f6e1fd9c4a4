"""Files are whole or absent, and say what was put into them."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from rest.run import store
from rest.types import Completion, Graded, Problem, Verdict


def _graded(sample: int, text: str = 'π = 3\n"quoted"') -> Graded:
  return Graded(
    problem_id='a/1',
    sample=sample,
    prompt='What is it?\n',
    completion=Completion(text, (5, 6, 2), (), 'token'),
    verdict=Verdict(1.0, 'equal', 'math-1'),
  )


def test_parts_come_back_as_they_went_in(tmp_path):
  parts = store.Parts(tmp_path / 'parts')
  assert parts.done() == set()
  parts.write(3, [_graded(1), _graded(0)])
  assert parts.done() == {3}
  assert parts.read(3) == [_graded(0), _graded(1)]


def test_a_part_reads_from_the_front_as_a_person_would(tmp_path):
  store.Parts(tmp_path).write(0, [_graded(0)])
  line = (tmp_path / 'part-000000.jsonl').read_text()
  assert line.startswith('{"problem": "a/1", "sample": 0, "reward": 1.0, ')
  assert 'π = 3' in line


def test_a_half_written_file_is_not_there(tmp_path):
  code = (
    'import os, sys\n'
    'from rest.run import store\n'
    'os.fsync = lambda fd: os.kill(os.getpid(), 9)\n'
    'store.write_whole(sys.argv[1], "x" * 100_000)\n'
  )
  path = tmp_path / 'parts' / 'part-000000.jsonl'
  done = subprocess.run([sys.executable, '-c', code, str(path)], check=False)
  assert done.returncode == -9
  assert not path.exists()
  assert store.Parts(path.parent).done() == set()


def test_a_file_is_whole_whoever_writes_it_at_once(tmp_path):
  path = tmp_path / 'part-000000.jsonl'
  contents = [name * 100_000 for name in 'abcd']
  with ThreadPoolExecutor(len(contents)) as writers:
    for _ in range(20):
      list(writers.map(store.write_whole, [path] * 4, contents))
      assert path.read_text() in contents
      assert list(tmp_path.iterdir()) == [path]


def test_a_malformed_line_is_numbered(tmp_path):
  path = tmp_path / 'part-000000.jsonl'
  path.write_text(store.to_line(_graded(0), 2) + '{"problem": 1}\n')
  with pytest.raises(ValueError, match='line 2'):
    list(store.read_lines(path))


def test_a_change_of_any_field_changes_the_hash():
  problems = [Problem('a', 'q', '1'), Problem('b', 'q', '1')]
  changed = [Problem('a', 'q', '1'), Problem('b', 'q', '2')]
  assert store.hash_problems(problems) == store.hash_problems(list(problems))
  assert store.hash_problems(problems) != store.hash_problems(changed)


def test_a_workdir_in_use_is_refused_until_its_process_dies(tmp_path):
  code = (
    'import sys\n'
    'from rest.run import store\n'
    'with store.Lock(sys.argv[1]):\n'
    '  print("held", flush=True)\n'
    '  sys.stdin.read()\n'
  )
  holder = subprocess.Popen(
    [sys.executable, '-c', code, str(tmp_path)],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
  )
  assert holder.stdout is not None
  assert holder.stdout.readline() == b'held\n'
  with pytest.raises(ValueError, match=f'process {holder.pid}'):
    store.Lock(tmp_path).__enter__()
  holder.kill()
  holder.communicate()
  with store.Lock(tmp_path):
    pass


def test_a_record_of_an_older_run_has_its_fields_under_todays_names(tmp_path):
  fields = {'sampling.temperature': 0.7, 'sampling.rows': 8}
  store.write_json(tmp_path / 'run.json', {'config': fields})
  record = store.find_record(tmp_path)
  assert record
  assert record['config'] == {'estep.temperature': 0.7, 'sampling.rows': 8}
  assert store.find_record(tmp_path / 'nowhere') is None
