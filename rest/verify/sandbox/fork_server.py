"""The fork server of one sandbox: warm, empty, and never read by a program.

`main` runs in an interpreter of its own. It locks itself away, warms up, and
forks a child for every job. What the jobs are is the business of the module
whose name it is given (`warm_up` and `run`). It never reads a program, an input
or a test, so a child inherits nothing of any of them.

Stops: leaving processes, files or patched modules for the next program. Does
not stop: addresses and load, by which one program may signal to another.
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
from collections.abc import Iterator
from types import ModuleType
from typing import Any, NoReturn

from rest.verify.sandbox import cgroup, jail, namespaces

_MESSAGE = 1 << 16
_TICKS = os.sysconf('SC_CLK_TCK')
_exit = os._exit
# For programs and the interpreters that they start, hidden from `os.environ`:
# hashes as here, one heap for all threads, and no threads in linear algebra,
# which a fork would lose and whose stacks fill the address space.
_HIDDEN_ENVIRONMENT = {
  'PYTHONHASHSEED': '0',
  'MALLOC_ARENA_MAX': '1',
  'OPENBLAS_NUM_THREADS': '1',
  'OMP_NUM_THREADS': '1',
  'MKL_NUM_THREADS': '1',
}


def main() -> None:
  """Serves jobs until the verifier goes away."""
  # The verifier may be held to less memory than the programs.
  _, hard = resource.getrlimit(resource.RLIMIT_AS)
  resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
  # Else a program of our user could end us: the first process of a namespace
  # only gets signals that it handles.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # As the host has it or not.
  control = socket.socket(fileno=int(sys.argv[1]))
  setup = json.loads(sys.argv[2])
  modules = setup.pop('modules')
  jobs = importlib.import_module(setup.pop('jobs'))
  place = jail.Jail(**setup | {'groups': tuple(setup['groups'])})
  try:
    doors = cgroup.open_doors(place.groups)
    if place.level == 'namespaces':
      namespaces.enter(control.fileno())
    warden = jail.Warden(place, doors)
    os.chdir(place.scratch)
    sys.path.insert(0, place.home)  # As Python has it.
  except OSError as error:
    control.send(json.dumps({'error': str(error)}).encode())
    return
  _warm_up(jobs, modules)
  control.send(b'{}')
  while True:
    message, descriptors, _, _ = socket.recv_fds(control, _MESSAGE, 8)
    if not message:
      return  # The kernel ends what is left in our namespaces.
    job = json.loads(message)
    if 'role' in job:  # Else it says stop, after the end.
      ended = _run(control, warden, jobs, job, descriptors)
      control.send(json.dumps(ended).encode())


def _warm_up(jobs: ModuleType, modules: list[str]) -> None:
  os.environ.clear()  # It was for the start of the interpreter.
  for name, value in _HIDDEN_ENVIRONMENT.items():
    os.putenv(name, value)
  jobs.warm_up(modules)
  for name in [n for n in sys.modules if n.split('.')[0] == 'rest']:
    del sys.modules[name]
  assert threading.active_count() == 1, 'A fork would lose threads.'
  gc.collect()
  gc.freeze()
  gc.disable()


def _run(
  control: socket.socket,
  warden: jail.Warden,
  jobs: ModuleType,
  job: dict[str, Any],
  descriptors: list[int],
) -> dict[str, Any]:
  """Runs one job to its end, or until told to stop; returns how it ended.

  Invariant: when it returns, no process of the job is left, and its places are
  empty; 'confined' says that the child was locked in before it did anything.
  Example: of `if not os.fork(): sleep(9)` the first process ends, with status
  0; the warden kills and reaps the second one, and its CPU time counts.
  """
  before = _cpu_of_children()
  locked, lock = os.pipe()
  pid = os.fork()
  if pid == 0:
    _child(warden, jobs, job, [*descriptors, lock])
  os.close(lock)
  for descriptor in descriptors:
    os.close(descriptor)
  ended = _watch(control, pid)
  if not ended:
    os.kill(pid, signal.SIGKILL)
  _, status = os.waitpid(pid, 0)
  warden.end()
  confined = os.read(locked, 1) == b'1'
  os.close(locked)
  return {
    'confined': confined,
    'stopped': not ended,
    'status': os.waitstatus_to_exitcode(status),
    'cpu': _cpu_of_children() - before,
  }


def _watch(control: socket.socket, pid: int) -> bool:
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
      control.send(json.dumps(_share()).encode())
    return True
  except ConnectionError:  # The verifier died with a message of ours unread.
    return False
  finally:
    os.close(watched)


def _cpu_of_children() -> float:
  usage = resource.getrusage(resource.RUSAGE_CHILDREN)
  return usage.ru_utime + usage.ru_stime


def _share() -> dict[str, float]:
  """Returns the seconds that a job has used, and waited for a core.

  Used is what its processes and all that they have waited for have used: more
  than they say only where a control group counts.
  """
  used = waited = 0.0
  for process in _descendants(os.getpid()):
    # Programs end at any time: what is gone raises one of several errors.
    with contextlib.suppress(OSError):
      text = pathlib.Path(f'/proc/{process}/stat').read_text()
      used += sum(map(int, text.rpartition(')')[2].split()[11:15]))
    for line in _of_threads(process, 'schedstat'):
      waited = max(waited, int(line.split()[1]))
  return {'used': used / _TICKS, 'waited': waited / 1e9}


def _descendants(pid: int) -> list[int]:
  found = []
  for line in _of_threads(pid, 'children'):
    for child in map(int, line.split()):
      found += [child, *_descendants(child)]
  return found


def _of_threads(pid: int, name: str) -> Iterator[str]:
  """Yields what a file says of each thread of a process that may be gone."""
  folder = f'/proc/{pid}/task'
  with contextlib.suppress(OSError):
    for thread in os.listdir(folder):
      with contextlib.suppress(OSError):
        yield pathlib.Path(f'{folder}/{thread}/{name}').read_text()


def _child(
  warden: jail.Warden,
  jobs: ModuleType,
  job: dict[str, Any],
  descriptors: list[int],
) -> NoReturn:
  """Becomes the job: descriptors 0, 1 and 2 are empty, its own begin at 3."""
  status = 1
  try:
    warden.admit()
    # Out of the way first: they may be in each other's places.
    moved = [_move(d, 64 + i) for i, d in enumerate(descriptors)]
    own = [_move(d, 3 + i) for i, d in enumerate(moved)]
    os.closerange(3 + len(own), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    warden.confine(jail.Limits(**job['limits']))
    os.write(own[-1], b'1')
    os.close(own.pop())
    signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.enable()
    status = jobs.run(job['role'], own)
  finally:
    _exit(status)  # Not by `os`, which a program may have patched.


def _move(descriptor: int, to: int) -> int:
  os.dup2(descriptor, to, inheritable=False)
  return to
