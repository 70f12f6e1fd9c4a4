"""The pool: every request gets one verdict, whatever happens to the workers."""

import concurrent.futures
import contextlib
import os
import pathlib
import random
import signal
import subprocess
import sys
import threading
import time

import pytest
from workers import worker_pids

from rest import types
from rest.types import Halted
from rest.verify import Pool, Request, VerifyConfig, exact

_PATIENCE = 60  # Seconds until what must happen has not happened.


def _math(answer: object, gold: object) -> Request:
  return Request('math', rf'So it is $\boxed{{{answer}}}$.', str(gold))


def _children() -> set[int]:
  children: set[int] = set()
  for task in pathlib.Path('/proc/self/task').iterdir():
    with contextlib.suppress(FileNotFoundError):  # A thread that just ended.
      children |= {int(pid) for pid in (task / 'children').read_text().split()}
  return children


def _wait_until(holds) -> None:
  deadline = time.monotonic() + _PATIENCE
  while not holds():
    assert time.monotonic() < deadline
    time.sleep(0.01)


def _signal(pool: Pool, number: int) -> None:
  for pid in worker_pids(pool):
    os.kill(pid, number)


@pytest.fixture(scope='module')
def pool():
  with Pool(VerifyConfig(), ('math', 'exact')) as pool:
    yield pool


def test_workers_find_what_is_on_the_python_path(tmp_path, monkeypatch):
  # As where libraries are installed with `pip install --target`.
  seen = tmp_path / 'seen'
  (tmp_path / 'sitecustomize.py').write_text(f"open({str(seen)!r}, 'w')")
  monkeypatch.setenv('PYTHONPATH', str(tmp_path))
  with Pool(VerifyConfig(workers=1), ('math',)) as pool:
    assert pool.submit(_math(1, 1)).result().reward == 1
  assert seen.exists()


def test_each_request_gets_its_own_verdict(pool):
  draw = random.Random(0)
  pairs = [(draw.randint(0, 3), draw.randint(0, 3)) for _ in range(300)]
  futures = [pool.submit(_math(*pair)) for pair in pairs]
  rewards = [future.result().reward for future in futures]
  assert rewards == [float(answer == gold) for answer, gold in pairs]


def test_three_verdicts_are_told_apart(pool):
  texts = [('7', '7'), ('8', '7'), ('7', '')]
  verdicts = [pool.submit(_math(*pair)).result() for pair in texts]
  assert [verdict.reward for verdict in verdicts] == [1.0, 0.0, None]
  assert {verdict.verifier for verdict in verdicts} == {'math-4'}


def test_one_answer_in_many_texts_is_judged_once(pool):
  before = pool.stats
  for i in range(20):
    text = rf'By way number {i} it is \boxed{{4x + 4}}.'
    assert pool.submit(Request('math', text, '4(x+1)')).result().reward == 1
  assert pool.stats.cached - before.cached == 19
  assert pool.stats.correct - before.correct == 20


def test_texts_that_are_not_unicode_are_judged(pool):
  for text in ('\ud800', '\x00', 'The answer is \udfff.', '\\boxed{\ud800}'):
    assert pool.submit(Request('math', text, '3')).result().reward == 0


def test_a_stopped_worker_is_replaced_and_its_item_judged():
  with Pool(VerifyConfig(workers=1, timeout=2), ('math',)) as pool:
    pool.submit(_math(0, 0)).result(_PATIENCE)  # Now its worker is ready.
    _signal(pool, signal.SIGSTOP)
    futures = [pool.submit(_math(i, i)) for i in range(20)]
    assert [f.result(_PATIENCE).reward for f in futures] == [1.0] * 20
    assert pool.stats.killed == pool.stats.retried == 1
    assert pool.stats.correct == 21


def test_an_item_that_hangs_twice_is_unknown_and_harms_no_other():
  with Pool(VerifyConfig(), ('math', 'hang')) as pool:
    futures = [
      pool.submit(Request('hang', '') if i % 20 == 10 else _math(i, i))
      for i in range(60)
    ]
    rewards = [future.result(_PATIENCE).reward for future in futures]
    assert rewards == [None if i % 20 == 10 else 1.0 for i in range(60)]
    stats = pool.stats
  assert (stats.unknown, stats.retried, stats.killed) == (3, 3, 6)
  assert (stats.correct, stats.waiting) == (57, 0)


@contextlib.contextmanager
def _killing(pool: Pool):
  """Kills all workers, again and again, until what is yielded is set."""
  over = threading.Event()

  def kill_workers():
    while not over.is_set():
      with contextlib.suppress(ProcessLookupError):  # Reaped just now.
        _signal(pool, signal.SIGKILL)
      time.sleep(0.02)

  _signal(pool, signal.SIGKILL)  # Those that could answer at once.
  killer = threading.Thread(target=kill_workers)
  killer.start()
  try:
    yield over
  finally:
    over.set()
    killer.join()


def test_workers_that_are_killed_for_a_while_cost_no_verdict(capsys):
  with Pool(VerifyConfig(workers=2), ('math',)) as pool:
    said = ''
    with _killing(pool) as over:
      futures = [pool.submit(_math(i, i)) for i in range(20)]
      while 'are killed' not in said:
        said += capsys.readouterr().err
        assert not any(future.done() for future in futures)
      over.set()
      assert [f.result(_PATIENCE).reward for f in futures] == [1.0] * 20
    assert (pool.stats.correct, pool.stats.unknown) == (20, 0)
  assert (said + capsys.readouterr().err).count('are killed') == 1


def test_workers_that_are_killed_for_ever_are_an_error(monkeypatch):
  monkeypatch.setattr('rest.verify.pool._KILLED_SECONDS', 0)
  with Pool(VerifyConfig(workers=1), ('math',)) as pool:
    with (
      _killing(pool),
      pytest.raises(Halted, match=r'^Verifier workers do not start'),
    ):
      pool.submit(_math(3, 3)).result(_PATIENCE)
    with pytest.raises(Halted, match=r'^Verifier workers do not start'):
      pool.submit(_math(4, 4))


def test_workers_that_end_by_themselves_are_not_waited_for(
  tmp_path, monkeypatch
):
  code = "import sys\nsys.modules['rest.verify.exact'] = None\n"
  (tmp_path / 'sitecustomize.py').write_text(code)
  monkeypatch.setenv('PYTHONPATH', str(tmp_path))
  monkeypatch.setattr(Pool, '_pause', lambda *unused: pytest.fail('waits'))
  with pytest.raises(Halted, match=r'^Verifier workers do not start'):
    Pool(VerifyConfig(workers=1), ('exact',))


@pytest.mark.parametrize(
  ('number', 'asked'),
  [(signal.SIGSEGV, 2), (signal.SIGTERM, 2), (signal.SIGKILL, 3)],
)
def test_who_kills_a_worker_is_known_once_it_is_alone(
  monkeypatch, number, asked
):
  with Pool(VerifyConfig(workers=1), ('hang',)) as pool:
    monkeypatch.setattr('rest.verify.pool._HANG_SECONDS', _PATIENCE)
    future = pool.submit(Request('hang', ''))
    for _ in range(asked):
      assert not future.done()
      _wait_until(lambda: pool._children['verify-0']._ready)
      child = pool._children['verify-0']
      os.kill(child.pid, number)
      _wait_until(lambda old=child: pool._children['verify-0'] is not old)
    assert future.result(_PATIENCE).reward is None
    assert (pool.stats.killed, pool.stats.retried) == (asked, 1)


def test_killing_workers_loses_nothing_and_leaves_nothing():
  draw = random.Random(0)
  config = VerifyConfig(workers=2, timeout=30)
  with Pool(config, ('math',)) as warm:
    warm.submit(_math(1, 1)).result()
  descriptors = len(os.listdir('/proc/self/fd'))
  before = _children()
  with Pool(config, ('math',)) as pool:
    futures = []
    for i in range(400):
      futures.append(pool.submit(_math(f'{i}x', f'{i + i % 2}x')))
      if i % 80 == 40:
        with contextlib.suppress(ProcessLookupError):  # Replaced just now.
          os.kill(draw.choice(worker_pids(pool)), signal.SIGKILL)
    rewards = [future.result(_PATIENCE).reward for future in futures]
    stats = pool.stats
  assert stats.correct + stats.incorrect + stats.unknown == 400
  assert [r for r in rewards if r is not None] == [
    float(i % 2 == 0) for i, r in enumerate(rewards) if r is not None
  ]
  assert stats.unknown <= 1  # One item would have to be hit twice.
  assert _children() == before
  assert len(os.listdir('/proc/self/fd')) == descriptors


def test_submit_blocks_while_the_queue_is_full():
  config = VerifyConfig(workers=1, queue=3, timeout=_PATIENCE)
  with Pool(config, ('math',)) as pool:
    pool.submit(_math(0, 0)).result(_PATIENCE)
    _signal(pool, signal.SIGSTOP)
    done = []

    def feed():
      for i in range(1, 41):
        done.append(pool.submit(_math(i, i)))

    feeder = threading.Thread(target=feed)
    feeder.start()
    _wait_until(lambda: len(done) == 4)  # One is asked, three wait.
    assert pool.stats.waiting == 4
    _signal(pool, signal.SIGCONT)
    feeder.join(_PATIENCE)
    assert [f.result(_PATIENCE).reward for f in done] == [1.0] * 40


def test_closing_ends_what_waits_and_what_runs():
  pool = Pool(VerifyConfig(workers=1, timeout=600), ('math',))
  pool.submit(_math(0, 0)).result(_PATIENCE)
  _signal(pool, signal.SIGSTOP)
  futures = [pool.submit(_math(i, i)) for i in range(1, 6)]
  _wait_until(lambda: futures[0].running())
  pool.close()
  with pytest.raises(RuntimeError, match='closed'):
    futures[0].result(_PATIENCE)
  for future in futures[1:]:
    with pytest.raises(concurrent.futures.CancelledError):
      future.result(_PATIENCE)
  with pytest.raises(RuntimeError, match='closed'):
    pool.submit(_math(1, 1))


def test_a_cancelled_request_is_not_judged():
  config = VerifyConfig(workers=1, timeout=_PATIENCE)
  with Pool(config, ('math',)) as pool:
    pool.submit(_math(1, 1)).result(_PATIENCE)
    _signal(pool, signal.SIGSTOP)
    asked = pool.submit(_math(4, 4))
    waiting = pool.submit(_math(2, 2))
    _wait_until(asked.running)
    assert waiting.cancel()
    _signal(pool, signal.SIGCONT)
    assert pool.submit(_math(3, 3)).result(_PATIENCE).reward == 1
    assert pool.stats.correct == 3


def test_workers_end_with_a_parent_that_is_killed():
  code = (
    'import time; from rest.verify import *;'
    "pool = Pool(VerifyConfig(), ('math',));"
    'print(*(x.pid for x in pool._children.values()), flush=True);'
    'time.sleep(600)'
  )
  parent = subprocess.Popen(
    [sys.executable, '-c', code], stdout=subprocess.PIPE, text=True
  )
  with parent:
    assert parent.stdout
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) == 2
    parent.kill()
  _wait_until(lambda: not any(map(_is_running, pids)))


def _is_running(pid: int) -> bool:
  try:
    stat = pathlib.Path(f'/proc/{pid}/stat').read_text()
  except FileNotFoundError:
    return False
  return stat.rpartition(')')[2].split()[0] != 'Z'


def test_workers_are_nice_small_and_without_jax(pool):
  pids = worker_pids(pool)
  nice = min(os.getpriority(os.PRIO_PROCESS, 0) + 10, 19)
  _wait_until(  # The one that replaced the self-test's may be starting.
    lambda: all(os.getpriority(os.PRIO_PROCESS, pid) == nice for pid in pids)
  )
  for pid in pids:
    process = pathlib.Path(f'/proc/{pid}')
    assert os.getsid(pid) == pid != os.getsid(0)
    assert 'jax' not in (process / 'maps').read_text()
    environment = (process / 'environ').read_text().split('\0')
    assert 'PYTHONHASHSEED=0' in environment


def test_unknown_verifiers_and_missing_tests_are_refused(pool):
  with pytest.raises(ValueError, match="'chess' is not one of"):
    Pool(VerifyConfig(), ('chess',))
  with pytest.raises(ValueError, match="not 'program'"):
    pool.submit(Request('program', '', tests=types.Tests('assert')))
  with pytest.raises(ValueError, match='Tests go with programs'):
    pool.submit(Request('math', '3', '3', tests=types.Tests('assert')))


@pytest.mark.parametrize(
  ('field', 'value'),
  [('workers', 0), ('timeout', 0.0), ('nice', 20), ('max_unknown', 1.5)],
)
def test_a_config_out_of_range_names_its_field(field, value):
  with pytest.raises(ValueError, match=f'verify.{field} must'):
    VerifyConfig(**{field: value})


@pytest.mark.parametrize(
  ('text', 'gold', 'reward'),
  [
    ('Let us think. So the answer is (B).', '(B)', 1),
    ('Let us think. So the answer is B.', '(B)', 1),
    ('So the answer is (A).', '(B)', 0),
    ('So the answer is (A). No, the answer is (B).', '(B)', 1),
    ('So the answer is True.', 'True', 1),
    ('So the answer is not True.', 'True', 0),
    ('the answer is  ] } ) .', '] } )', 1),
    ('the answer is ] ) }.', '] } )', 0),
    ('The answer is -13.', '-13', 1),
    ('the answer is 13', '-13', 0),
    ("So the answer is valid. Let's sum up the results:", 'valid', 1),
    ("So the answer is invalid. Let's see whether it is valid.", 'valid', 0),
    ('The answer is **True**. It is not False.', 'True', 1),
    ('The answer is **(B)**.', '(B)', 1),
    ('The answer is St. Louis. It is a city.', 'St. Louis', 1),
    ('The answer is St. Louis.', 'St', 1),  # The price.
    ('the answer is 3.5.', '3', 0),
    ('So the answer is add Banana cherry.', 'add banana cherry', 1),
    ('So the answer is (A) or (B).', '(A)', 0),
    ('yes', 'Yes', 1),
    ('It may be\nyes or no', 'Yes', 0),
    ('So the answer is', 'Yes', 0),
    ('', 'Yes', 0),
    ('The answer is yes.', '', None),
  ],
)
def test_exact_answers_match_word_for_word(text, gold, reward):
  answer = exact.extract(text)
  found = 0 if answer is None else exact.judge(gold, answer).reward
  assert found == reward
