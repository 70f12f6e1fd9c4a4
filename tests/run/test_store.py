"""Files are whole or absent, and say what was put into them."""

import dataclasses
import gzip
import resource
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from rest.run import part, store
from rest.run.lock import Lock
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
  with gzip.open(tmp_path / 'part-000000.jsonl.gz', 'rt') as file:
    line = file.read()
  assert line.startswith('{"problem": "a/1", "sample": 0, "reward": 1.0, ')
  assert 'π = 3' in line


def test_a_half_written_file_is_not_there(tmp_path):
  code = (
    'import os, sys\n'
    'from rest.run import store\n'
    'os.fsync = lambda fd: os.kill(os.getpid(), 9)\n'
    'store.write_whole(sys.argv[1], "x" * 100_000)\n'
  )
  path = tmp_path / 'parts' / 'part-000000.jsonl.gz'
  done = subprocess.run([sys.executable, '-c', code, str(path)], check=False)
  assert done.returncode == -9
  assert not path.exists()
  assert store.Parts(path.parent).done() == set()


def test_a_file_is_whole_whoever_writes_it_at_once(tmp_path):
  path = tmp_path / 'part-000000.jsonl.gz'
  contents = [name * 100_000 for name in 'abcd']
  with ThreadPoolExecutor(len(contents)) as writers:
    for _ in range(20):
      list(writers.map(store.write_whole, [path] * 4, contents))
      assert path.read_text() in contents
      assert list(tmp_path.iterdir()) == [path]


def test_samples_that_resemble_each_other_take_little(tmp_path):
  """Of 200 tokens each, a tenth of them its own: half a kilobyte."""
  random = np.random.default_rng(0)
  ids, others = random.integers(50_000, size=(2, 32, 200))
  ids = np.where(random.random(ids.shape) < 0.1, others, ids[0])
  words = [[f'{"aeiou"[i % 5]}{i:x} ' for i in row] for row in ids.tolist()]
  rows = [
    dataclasses.replace(
      _graded(sample),
      completion=Completion(
        ''.join(words[sample]), tuple(ids[sample].tolist()), (), 'token'
      ),
    )
    for sample in range(32)
  ]
  store.Parts(tmp_path).write(0, rows)
  assert (tmp_path / 'part-000000.jsonl.gz').stat().st_size < 32 * 512


def test_pieces_are_written_whole_or_not_at_all(tmp_path):
  path = tmp_path / 'x.txt'
  store.write_whole(path, (f'{number}\n' for number in range(3)))
  assert path.read_text() == '0\n1\n2\n'
  with pytest.raises(ZeroDivisionError):
    store.write_whole(path, (str(1 // n) for n in (1, 0)))
  assert path.read_text() == '0\n1\n2\n'
  assert list(tmp_path.iterdir()) == [path]


def test_problems_of_one_file_come_in_any_order(tmp_path):
  parts = store.Parts(tmp_path)
  rows = {index: [_graded(0, str(index))] for index in range(6)}
  parts.write_together({index: rows[index] for index in (4, 0, 3)})
  parts.write_together({index: rows[index] for index in (1, 5)})
  parts.write(2, rows[2])
  assert parts.done() == {*range(6)}
  assert list(parts.read_done()) == [rows[index] for index in range(6)]
  assert list(parts.read_each([5, 3, 2])) == [rows[i] for i in (5, 3, 2)]
  lines = b''.join(p.read_bytes() for p in sorted(tmp_path.iterdir()))
  assert gzip.decompress(lines).count(b'\n') == 6  # As zcat shows them.


def test_each_part_is_opened_once_to_be_read(tmp_path):
  parts = store.Parts(tmp_path)
  for index in range(0, 40, 2):
    groups = {i: [_graded(0)] for i in (index, index + 1)}
    parts.write_together(groups)
  opened: list[str] = []
  sys.addaudithook(
    lambda event, told: opened.append(str(told[0])) if event == 'open' else None
  )
  assert [i for i, _ in parts.read_whole(['a/1'] * 40, print)] == [*range(40)]
  assert sum('part-' in name for name in opened) == 20
  assert len(list(parts.read_done())) == 40
  assert sum('part-' in name for name in opened) == 40


def test_reading_ahead_may_be_given_up_in_a_thread_of_its_own(
  tmp_path, monkeypatch
):
  paths = [tmp_path / f'{i}' for i in range(store._READERS)]
  given_up, ended = threading.Event(), []

  def read(path):
    if path == paths[-1]:
      assert given_up.wait(60)
      ended.append(ahead.close())
    return b''

  monkeypatch.setattr(store, '_read', read)
  ahead = store._read_ahead(paths)
  assert next(ahead).result() == b''
  *_, last = ahead.gi_frame.f_locals['waiting']
  given_up.set()
  assert last.result(60) == b''
  assert ended == [None]


def test_a_file_that_cannot_be_begun_says_why(tmp_path):
  limits = resource.getrlimit(resource.RLIMIT_NOFILE)
  resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
  try:
    with pytest.raises(OSError, match='Too many open files'):
      store.write_whole(tmp_path / 'part', 'content')
  finally:
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_malformed_line_is_numbered(tmp_path):
  path = tmp_path / 'part-000000.jsonl'
  path.write_text(part.to_line(_graded(0), 2) + '{"problem": 1}\n')
  with pytest.raises(ValueError, match='line 2'):
    store.Parts(tmp_path).read(0)


def test_a_change_of_any_field_changes_the_hash():
  problems = [Problem('a', 'q', '1'), Problem('b', 'q', '1')]
  changed = [Problem('a', 'q', '1'), Problem('b', 'q', '2')]
  assert store.hash_problems(problems) == store.hash_problems(list(problems))
  assert store.hash_problems(problems) != store.hash_problems(changed)


def test_a_workdir_in_use_is_refused_until_its_process_dies(tmp_path):
  code = (
    'import sys\n'
    'from rest.run.lock import Lock\n'
    'with Lock(sys.argv[1]):\n'
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
    Lock(tmp_path).__enter__()
  holder.kill()
  holder.communicate()
  with Lock(tmp_path):
    pass


def test_a_record_of_an_older_run_has_its_fields_under_todays_names(tmp_path):
  fields = {'sampling.temperature': 0.7, 'sampling.rows': 8}
  store.write_json(tmp_path / 'run.json', {'config': fields})
  record = store.find_record(tmp_path)
  assert record
  assert record['config'] == {'estep.temperature': 0.7, 'sampling.rows': 8}
  assert store.find_record(tmp_path / 'nowhere') is None
