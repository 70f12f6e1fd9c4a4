"""Graders judge what is drawn, apart from the process that draws."""

import os
import pathlib
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from rest import tasks
from rest.e_step.grader import Sample, Work
from rest.e_step.graders import Graders
from rest.model import tokenizer
from rest.run import store
from rest.types import Halted, Tokenizer
from rest.verify import Request, VerifyConfig

ROOT = pathlib.Path(__file__).parents[2]
BASE = str(ROOT / 'rest/model/assets/arithmetic-1m')
TASK = tasks.make(
  tasks.TaskConfig(name='arithmetic', prompt='zero_shot', num_train=6)
)
PROBLEMS = TASK.problems('train')


@pytest.fixture(scope='module')
def codec() -> Tokenizer:
  return tokenizer.load(BASE)


def _start(codec: Tokenizer, workers: int = 1) -> Graders:
  return Graders(VerifyConfig(workers=workers), ('math',), codec)


def _samples(codec: Tokenizer, index: int, count: int = 3) -> list[Sample]:
  """A right answer, and wrong ones; the last to come is the first."""
  problem = PROBLEMS[index]
  found = []
  for sample in reversed(range(count)):
    text = f'#### {problem.answer if sample == 0 else sample}0'
    text = text[:-1] if sample == 0 else text
    ids = [*codec.encode(text, follows=True), codec.eos[0]]
    first = problem if sample == count - 1 else None
    found.append(Sample(index, first, sample, np.int32(ids).tobytes()))
  return found


def _grade(
  graders: Graders, codec: Tokenizer, folder: store.epath.Path | None
) -> dict[int, list[float | None]]:
  grading = graders.grading(Work(TASK, 3, folder=folder))
  for index in range(len(PROBLEMS)):
    grading.send(_samples(codec, index))
  found = {}
  for done in [*grading.settled(), *grading.finish()]:
    assert done.index not in found
    found[done.index] = [row.verdict.reward for row in done.rows]
  assert not grading.unjudged
  return found


def test_each_problem_is_judged_once_and_is_on_disk(codec, tmp_path):
  folder = store.epath.Path(tmp_path)
  right = {index: [1.0, 0.0, 0.0] for index in range(len(PROBLEMS))}
  with _start(codec) as one, _start(codec, workers=5) as two:
    assert _grade(one, codec, folder / 'one') == right
    assert _grade(two, codec, folder / 'two') == right
    assert _grade(one, codec, None) == right  # Likewise a second list.
  for index in range(len(PROBLEMS)):
    name = f'part-{index:06d}.jsonl.gz'
    whole = (folder / 'one' / name).read_bytes()
    assert (folder / 'two' / name).read_bytes() == whole
    rows = store.Parts(folder / 'one').read(index)
    assert [row.sample for row in rows] == [0, 1, 2]
    assert rows[0].prompt == TASK.question(PROBLEMS[index])


def test_what_was_dropped_does_not_come_later(codec, tmp_path):
  folder = store.epath.Path(tmp_path)
  right = {index: [1.0, 0.0, 0.0] for index in range(len(PROBLEMS))}
  with _start(codec, workers=5) as graders:
    dropped = graders.grading(Work(TASK, 3, folder=folder))
    dropped.send(_samples(codec, 0)[:2])  # The right one is missing.
    assert _grade(graders, codec, folder) == right
    # Nor what was dropped when all had been sent.
    dropped = graders.grading(Work(TASK, 3, folder=folder))
    for index in range(len(PROBLEMS)):
      dropped.send(_samples(codec, index))
    next(dropped.finish())
    assert _grade(graders, codec, folder) == right


def test_a_verdict_can_be_asked_for_by_itself(codec):
  with _start(codec, workers=5) as graders:
    asked = [graders.submit(Request('math', '#### 3', '3'))]
    asked += [graders.submit(Request('math', '#### 4', '3'))]
    assert [future.result().reward for future in asked] == [1.0, 0.0]


def test_many_threads_may_ask_while_samples_are_sent(codec):
  right = {index: [1.0, 0.0, 0.0] for index in range(len(PROBLEMS))}
  # Too long to be sent at once.
  texts = [f'{"So. " * 50_000}#### {number}' for number in range(40)]
  with _start(codec) as graders, ThreadPoolExecutor(8) as threads:
    asked = threads.map(
      lambda text: graders.submit(Request('math', text, '3')), texts
    )
    assert _grade(graders, codec, None) == right
    rewards = [future.result(60).reward for future in asked]
  assert rewards == [float(number == 3) for number in range(40)]


def test_who_waits_for_a_grader_that_is_killed_is_told(codec):
  with _start(codec) as graders:
    graders.ready()
    (child,) = _children(os.getpid(), 'rest.e_step.grader')
    os.kill(child, signal.SIGSTOP)  # It answers nothing more.
    asked = graders.submit(Request('math', '#### 3', '3'))
    os.kill(child, signal.SIGKILL)
    with pytest.raises(Halted, match='run the same command again'):
      asked.result(60)
    with pytest.raises(Halted, match='run the same command again'):
      graders.submit(Request('math', '#### 3', '3'))


def test_a_grader_that_is_killed_ends_the_run_in_a_sentence(codec):
  with _start(codec) as graders:
    (child,) = _children(os.getpid(), 'rest.e_step.grader')
    os.kill(child, signal.SIGKILL)
    with pytest.raises(Halted, match=r'status -9.* run the same command again'):
      _grade(graders, codec, None)


def test_a_file_that_cannot_be_written_is_an_error_of_the_run(codec, tmp_path):
  (tmp_path / 'parts').write_text('')  # No folder can be made here.
  with (
    _start(codec) as graders,
    pytest.raises(OSError, match='parts') as error,
  ):
    _grade(graders, codec, store.epath.Path(tmp_path / 'parts'))
  assert error.value.errno


def test_graders_leave_with_the_run(tmp_path):
  program = (
    'import sys, time\n'
    'from rest.e_step.graders import Graders\n'
    'from rest.model import tokenizer\n'
    'from rest.verify import VerifyConfig\n'
    f'codec = tokenizer.load({BASE!r})\n'
    "with Graders(VerifyConfig(workers=5), ('math',), codec) as graders:\n"
    '  graders.ready()\n'
    "  print('ready', flush=True)\n"
    '  time.sleep(600)\n'
  )
  run = subprocess.Popen(
    [sys.executable, '-c', program], stdout=subprocess.PIPE, cwd=ROOT
  )
  with run:
    assert run.stdout
    assert run.stdout.readline() == b'ready\n'
    graders = _children(run.pid, 'rest.e_step.grader')
    workers = [pid for one in graders for pid in _children(one, 'verify')]
    assert (len(graders), len(workers)) == (2, 5)
    run.kill()
  for pid in (*graders, *workers):
    while pathlib.Path(f'/proc/{pid}/cmdline').exists():
      if not pathlib.Path(f'/proc/{pid}/cmdline').read_bytes():
        break  # Nobody has waited for it.
      time.sleep(0.05)


def test_a_grader_imports_no_device_library():
  code = (
    'import sys, rest.e_step.grader\n'
    "print({'jax', 'flax', 'orbax', 'tensorflow'} & set(sys.modules))"
  )
  said = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, check=True, cwd=ROOT
  )
  assert said.stdout == b'set()\n'


def _children(parent: int, name: str) -> list[int]:
  """Returns the processes of a parent whose command holds a name."""
  found = []
  for folder in pathlib.Path('/proc').glob('[0-9]*'):
    try:
      fields = (folder / 'stat').read_text().rpartition(')')[2].split()
      command = (folder / 'cmdline').read_text()
    except OSError:
      continue  # It has left.
    if int(fields[1]) == parent and name in command:
      found.append(int(folder.name))
  return found
