"""The fork server of one sandbox: warm, empty, and never read by a program.

`main` runs in an interpreter of its own. It locks itself away, imports what
programs like to import, and forks a child for every job. It never reads a
program, an input or a test, so a child inherits nothing of any of them.
"""

import contextlib
import gc
import importlib
import json
import os
import pathlib
import resource
import select
import signal
import socket
import sys
import threading
from typing import Any, NoReturn

from rest.verify import candidate, cgroup, jail, namespaces, tester

_MESSAGE = 1 << 16
_exit = os._exit
_STDLIB = (
  'abc', 'array', 'ast', 'base64', 'bisect', 'calendar', 'cmath',
  'collections.abc', 'contextlib', 'copy', 'dataclasses', 'datetime',
  'decimal', 'enum', 'fractions', 'functools', 'hashlib', 'heapq', 'itertools',
  'json', 'logging', 'math', 'numbers', 'operator', 'pprint', 'queue',
  'random', 're', 'statistics', 'string', 'struct', 'textwrap', 'time',
  'traceback', 'types', 'typing', 'unicodedata', 'uuid', 'warnings', 'weakref',
)  # fmt: skip
# What a child does once it is locked in. Each gets the descriptors of its job.
_ROLES = {
  'script': candidate.run_script,
  'call': candidate.call,
  'serve': candidate.serve,
  'test': tester.run,
}


def main() -> None:
  """Serves jobs until the verifier goes away."""
  control = socket.socket(fileno=int(sys.argv[1]))
  setup = json.loads(sys.argv[2])
  place = jail.Jail(**setup | {'groups': tuple(setup['groups'])})
  try:
    cgroup.join(setup['groups'])
    if place.level == 'namespaces':
      namespaces.enter(control.fileno())
    warden = jail.Warden(place)
    os.chdir(place.scratch)
  except OSError as error:
    control.send(json.dumps({'error': str(error)}).encode())
    return
  _warm_up()
  control.send(b'{}')
  while True:
    message, descriptors, _, _ = socket.recv_fds(control, _MESSAGE, 8)
    if not message:
      return  # The kernel ends what is left in our namespaces.
    job = json.loads(message)
    if 'role' in job:  # Else it says stop, after the end.
      control.send(json.dumps(_run(control, warden, job, descriptors)).encode())


def _warm_up() -> None:
  for name in _STDLIB:
    importlib.import_module(name)
  for name in [n for n in sys.modules if n.split('.')[0] == 'rest']:
    del sys.modules[name]
  sys.set_int_max_str_digits(0)
  os.environ.clear()  # It was for the start of the interpreter.
  _settle()


def _settle() -> None:
  assert threading.active_count() == 1, 'A fork would lose threads.'
  gc.collect()
  gc.freeze()
  gc.disable()


def _import_numpy() -> None:
  # A fork would lose the threads of its linear algebra.
  for name in ('OPENBLAS', 'OMP', 'MKL'):
    os.environ[f'{name}_NUM_THREADS'] = '1'
  with contextlib.suppress(ImportError):
    importlib.import_module('numpy')
  os.environ.clear()
  _settle()


def _run(
  control: socket.socket,
  warden: jail.Warden,
  job: dict[str, Any],
  descriptors: list[int],
) -> dict[str, Any]:
  """Runs one job to its end, or until told to stop; returns how it ended."""
  if job['numpy'] and 'numpy' not in sys.modules:
    _import_numpy()
  locked, lock = os.pipe()
  pid = os.fork()
  if pid == 0:
    _child(warden, job, [*descriptors, lock])
  os.close(lock)
  for descriptor in descriptors:
    os.close(descriptor)
  ended = _watch(control, pid, warden.jail.level)
  if not ended:
    os.kill(pid, signal.SIGKILL)
  _, status, usage = os.wait4(pid, 0)
  warden.end()
  confined = os.read(locked, 1) == b'1'
  os.close(locked)
  return {
    'confined': confined,
    'stopped': not ended,
    'status': os.waitstatus_to_exitcode(status),
    'cpu': usage.ru_utime + usage.ru_stime,
    'peak': usage.ru_maxrss << 10,
  }


def _watch(control: socket.socket, pid: int, level: str) -> bool:
  """Waits for the end of a child, or to be told to end it; returns which."""
  watched = os.pidfd_open(pid)
  try:
    poll = select.poll()
    poll.register(watched, select.POLLIN)
    poll.register(control, select.POLLIN)
    while watched not in dict(poll.poll()):
      message = control.recv(_MESSAGE)
      if not message or 'share' not in json.loads(message):
        return False
      control.send(json.dumps(_share(pid, level)).encode())
    return True
  finally:
    os.close(watched)


def _share(pid: int, level: str) -> dict[str, float]:
  """Returns the seconds that a job has used, and waited for a core."""
  everybody = [p for p in os.listdir('/proc') if p.isdecimal() and p != '1']
  used = waited = 0
  for process in everybody if level == 'namespaces' else [str(pid)]:
    with contextlib.suppress(FileNotFoundError):  # It has just ended.
      for thread in os.listdir(f'/proc/{process}/task'):
        file = pathlib.Path(f'/proc/{process}/task/{thread}/schedstat')
        ran, stood = file.read_text().split()[:2]
        used += int(ran)
        waited = max(waited, int(stood))
  return {'used': used / 1e9, 'waited': waited / 1e9}


def _child(
  warden: jail.Warden, job: dict[str, Any], descriptors: list[int]
) -> NoReturn:
  """Becomes the job: descriptors 0, 1 and 2 are empty, its own begin at 3."""
  status = 1
  try:
    # Out of the way first: they may be in each other's places.
    moved = [_move(d, 64 + i) for i, d in enumerate(descriptors)]
    own = [_move(d, 3 + i) for i, d in enumerate(moved)]
    os.closerange(3 + len(own), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    warden.confine(jail.Limits(**job['limits']))
    os.write(own[-1], b'1')
    os.close(own.pop())
    gc.enable()
    status = _ROLES[job['role']](own)
  finally:
    _exit(status)  # Not by `os`, which a program may have patched.


def _move(descriptor: int, to: int) -> int:
  os.dup2(descriptor, to, inheritable=False)
  return to
