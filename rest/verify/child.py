"""One killable interpreter, and the pipe through which it is asked.

The parent may hold JAX, threads and a device, so a worker is never a fork of
it: `python -m rest.verify.worker` starts afresh, in a session of its own, and
leaves when the parent does. Whatever hangs in there ends by SIGKILL, since
alarms inside a process wait for C code that may never return.
"""

import json
import os
import pathlib
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping

from rest.config import VerifyConfig

_START_SECONDS = 60.0  # For a worker's imports, on a host that is overloaded.
_LEAVE_SECONDS = 2.0  # For a worker that was told to leave.
_KEPT = ('PATH', 'HOME', 'LANG', 'LD_LIBRARY_PATH', 'TMPDIR', 'VIRTUAL_ENV')


class Child:
  """A worker interpreter, asked one thing at a time.

  `ask` and `close` belong to one thread; `kill` may come from any. The thread
  that makes a Child must live as long as it: Linux sends the parent-death
  signal when that thread ends.

  Attributes:
    sandbox: Once it is ready, what isolates programs there: one of
      `jail.LEVELS`, or '' where it judges none.
  """

  def __init__(self, config: VerifyConfig, verifiers: tuple[str, ...]):
    """Starts the interpreter; does not wait until it is ready.

    Args:
      config: Its limits.
      verifiers: Names of what it has to judge, imported before it is ready.
    """
    setup = {
      'parent': os.getpid(),
      'verifiers': verifiers,
      'memory': config.memory,
      'nice': config.nice,
      'allow_weak_sandbox': config.allow_weak_sandbox,
    }
    self._process = subprocess.Popen(
      [sys.executable, '-P', '-m', 'rest.verify.worker', json.dumps(setup)],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      bufsize=0,
      env=_environment(),
      start_new_session=True,
    )
    assert self._process.stdin and self._process.stdout
    self._to = self._process.stdin
    self._from = self._process.stdout
    os.set_blocking(self._to.fileno(), False)
    os.set_blocking(self._from.fileno(), False)
    self._lock = threading.Lock()  # Between a kill and the reaping.
    self.sandbox = ''
    self._ready = False
    self._received = b''
    self._left = False  # Whether it was gone before its deadline.

  @property
  def pid(self) -> int:
    """The process id of the worker, and of its group."""
    return self._process.pid

  @property
  def alive(self) -> bool:
    """Whether it can still be asked."""
    return self._process.returncode is None

  @property
  def was_killed(self) -> bool:
    """Whether another than its pool killed it, as Linux out of memory does."""
    return self._left and self._process.returncode == -signal.SIGKILL

  def wait_ready(self) -> bool:
    """Returns whether the worker has finished its imports; kills it if not."""
    if self._ready:
      return True
    reply = self._receive(time.monotonic() + _START_SECONDS)
    self._ready = reply is not None and 'ready' in reply
    if reply is not None and self._ready:
      self.sandbox = reply['sandbox']
    else:
      self._end()
    return self._ready

  def ask(self, message: Mapping[str, object], seconds: float) -> dict | None:
    """Returns the worker's reply, or None: then the worker has been killed.

    Args:
      message: What the worker is sent, as JSON.
      seconds: Wall time for the reply, from dispatch to a worker that is ready.
        A worker that judges programs first replies how long this one may take.
    """
    deadline = time.monotonic() + seconds
    line = json.dumps(message).encode() + b'\n'
    reply = self._receive(deadline) if self._send(line, deadline) else None
    if reply is not None and 'seconds' in reply:
      reply = self._receive(time.monotonic() + reply['seconds'])
    if reply is None:
      self._end()
    return reply

  def kill(self) -> None:
    """Kills the worker's process group; a pending `ask` then returns None."""
    with self._lock:
      if self._process.returncode is None:
        os.killpg(self._process.pid, signal.SIGKILL)

  def close(self) -> None:
    """Lets the worker leave by itself, and kills it if it does not."""
    if self.alive:
      self._to.close()
      self._wait_exit(time.monotonic() + _LEAVE_SECONDS)
    self._end()

  def _end(self) -> None:
    self.kill()
    # Waiting outside the lock is safe: nobody else reaps, and the pid stays
    # taken until then.
    if self.alive:
      os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
      with self._lock:
        self._process.wait()
    self._to.close()
    self._from.close()

  def _wait_exit(self, deadline: float) -> None:
    """Waits until the worker closes its end of the pipe."""
    while not self._from.closed:
      left = deadline - time.monotonic()
      if left <= 0 or not _wait(self._from.fileno(), select.POLLIN, left):
        return
      if not os.read(self._from.fileno(), 65536):
        return

  def _send(self, line: bytes, deadline: float) -> bool:
    left = memoryview(line)
    while left:
      try:
        left = left[os.write(self._to.fileno(), left) :]
      except BlockingIOError:
        seconds = deadline - time.monotonic()
        if seconds <= 0:
          return False
        _wait(self._to.fileno(), select.POLLOUT, seconds)
      except BrokenPipeError:
        self._left = True
        return False
    return True

  def _receive(self, deadline: float) -> dict | None:
    while b'\n' not in self._received:
      seconds = deadline - time.monotonic()
      if seconds <= 0:
        return None
      if _wait(self._from.fileno(), select.POLLIN, seconds):
        chunk = os.read(self._from.fileno(), 65536)
        if not chunk:
          self._left = True
          return None
        self._received += chunk
    line, _, self._received = self._received.partition(b'\n')
    return json.loads(line)


def _environment() -> dict[str, str]:
  root = pathlib.Path(__file__).resolve().parents[2]
  kept = {k: os.environ[k] for k in _KEPT if k in os.environ}
  # It finds what this process finds, its libraries perhaps among them.
  given = os.environ.get('PYTHONPATH', '').split(os.pathsep)
  paths = [str(root), *(os.path.abspath(path) for path in given if path)]
  return kept | {
    'PYTHONPATH': os.pathsep.join(paths),
    'PYTHONHASHSEED': '0',
  }


def _wait(fd: int, event: int, seconds: float) -> bool:
  """Waits for an event on a descriptor; `select` would fail above 1,024."""
  poll = select.poll()
  poll.register(fd, event)
  return bool(poll.poll(seconds * 1000))
