"""The fork server and its verifier: each may die at any moment."""

import os
import signal
import socket
import subprocess
import sys

import pytest

from rest.verify.sandbox import fork_server, sandbox

_SHARE = b'{"share": true}'


@pytest.fixture
def program():
  process = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=-1)
  yield process.pid
  process.kill()
  process.communicate()


def _pair() -> tuple[socket.socket, socket.socket]:
  return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def test_a_job_is_over_when_its_verifier_died_with_a_message_unread(program):
  ours, theirs = _pair()
  ours.send(b'{}')
  theirs.close()
  assert not fork_server._watch(ours, program)
  ours.close()


def test_a_job_is_over_when_its_verifier_died_with_a_question_open(program):
  ours, theirs = _pair()
  theirs.send(_SHARE)
  theirs.close()
  assert not fork_server._watch(ours, program)
  ours.close()


def test_a_process_that_is_gone_has_no_share_and_no_children(program):
  done = subprocess.Popen([sys.executable, '-c', ''])
  done.wait()
  assert list(fork_server._of_threads(done.pid, 'schedstat')) == []
  assert fork_server._descendants(done.pid) == []
  assert program in fork_server._descendants(os.getpid())


def test_a_fork_server_that_dies_with_a_message_unread_is_an_error():
  jobs = 'rest.verify.program.jobs'
  server = sandbox.Sandbox('rlimits', jobs, 'program', 1 << 28, 8)
  os.kill(server._process.pid, signal.SIGSTOP)
  server.stop()  # Lies unread in its socket.
  server._process.kill()
  with pytest.raises(sandbox.SandboxError, match='does not answer'):
    server.finish()
  server.close()
