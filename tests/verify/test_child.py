"""A worker interpreter, which may die at any moment of a conversation."""

import os
import signal
import threading

import pytest

from rest.verify import Pool, VerifyConfig, pool
from rest.verify.child import Child

_ASKED = {'verifier': 'exact', 'gold': 'yes', 'text': 'Yes'}


@pytest.fixture
def child():
  child = Child(VerifyConfig(nice=0), ('exact',))
  assert child.wait_ready()
  yield child
  child.close()


def test_a_worker_that_has_died_gives_no_reply(child):
  assert child.ask(_ASKED, 60)['reward'] == 1
  os.kill(child.pid, signal.SIGKILL)
  os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
  assert child.ask(_ASKED, 60) is None
  assert not child.alive


@pytest.mark.parametrize('text', ['x', 'x' * (1 << 22)])
def test_a_worker_that_dies_amid_a_conversation_gives_no_reply(child, text):
  os.kill(child.pid, signal.SIGSTOP)  # It reads no more than a pipe holds.
  child._received = b'{"reward": 1.0, '  # And has written half of its reply.
  killer = threading.Timer(0.2, os.kill, (child.pid, signal.SIGKILL))
  killer.start()
  assert child.ask(_ASKED | {'text': text}, 60) is None
  killer.join()


def test_a_pool_whose_workers_cannot_be_started_says_so(monkeypatch):
  def refuse(*_, **__):
    raise OSError('no more processes')

  monkeypatch.setattr(pool, 'Child', refuse)
  with pytest.raises(RuntimeError, match='no more processes'):
    Pool(VerifyConfig(workers=2), ('exact',))
