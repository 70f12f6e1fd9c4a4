"""The verifier's side of one sandbox: starts it, hands it jobs, ends it.

A sandbox is a fork server locked away with whatever the host allows;
`probe.strongest` finds out what that is by attacking itself. Nothing survives
this process: the fork server ends when its control socket closes, and
everything in its namespaces with it.

Stops, with what it starts: a program that outlives its job or its verifier, and
one that reads what others were given. Does not stop: what the level that holds
here does not, which `probe` finds out.
"""

import contextlib
import dataclasses
import itertools
import json
import os
import pathlib
import resource
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass

from rest.verify.sandbox import cgroup, namespaces
from rest.verify.sandbox.jail import LEVELS, Jail, Limits, make_folders

PREFIX = 'rest'  # Of folders and control groups that may have to be swept.
FIRST_USER = 1_000_000_000  # Above all users of a host.
USERS = 64  # Of one process, one after the other.
_users = itertools.count()
START_SECONDS = 60.0  # For an interpreter's start on an overloaded host.
END_SECONDS = 60.0  # For killing what a program has left.
_MESSAGE = 1 << 16
# Memory that the interpreter itself takes, on top of a program's.
_INTERPRETER = 256 << 20
# Without what the packages themselves import: every fork would pay for it.
_BOOT = """
import sys, types
room, root = sys.argv[3:]
for name in 'rest', 'rest.verify', 'rest.verify.sandbox', room:
  sys.modules[name] = types.ModuleType(name)
  sys.modules[name].__path__ = [f'{root}/{name.replace(".", "/")}']
from rest.verify.sandbox import fork_server
fork_server.main()
"""
_ENVIRONMENT = {
  'MALLOC_ARENA_MAX': '1',  # More take 64 MiB of address space a thread.
  'PYTHONHASHSEED': '0',
  'PYTHONUTF8': '1',
  'LC_ALL': 'C.UTF-8',
  'TZ': 'UTC',
}


class SandboxError(RuntimeError):
  """The sandbox failed, for no fault of a program."""


@dataclass(frozen=True, slots=True)
class Ended:
  """How a job ended.

  Attributes:
    status: Its exit status; negative for a signal.
    cpu: Seconds of CPU time.
    stopped: Whether it was told to stop, rather than ended by itself.
    out_of_memory: Whether the control group killed one of its processes.
  """

  status: int
  cpu: float
  stopped: bool
  out_of_memory: bool


@dataclass(frozen=True, slots=True)
class Share:
  """What a running job has had of the host.

  Attributes:
    used: Seconds of CPU time, of all its processes.
    waited: Seconds for which it could run but got no core.
  """

  used: float
  waited: float


class Sandbox:
  """One fork server; runs one job at a time."""

  def __init__(
    self,
    level: str,
    jobs: str,
    role: str,
    memory: int,
    processes: int,
    modules: Sequence[str] = (),
  ):
    """Starts the fork server and waits until it is warm.

    Args:
      level: One of `jail.LEVELS`.
      jobs: The module of ours that says what is done in it: `warm_up(modules)`,
        and `run(role, descriptors)` in each child.
      role: 'program' or 'tests': they are different users.
      memory: Bytes that a program may hold.
      processes: Processes and threads that it may have, besides its first.
      modules: What programs find imported, besides the standard library.

    Raises:
      SandboxError: The host does not allow this level.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard != resource.RLIM_INFINITY and hard < memory + _INTERPRETER:
      raise SandboxError(f'This process itself is held to {hard >> 20} MiB.')
    self.level = level
    self._memory = memory + _INTERPRETER
    name = f'{PREFIX}_{os.getpid()}_{role}_{time.monotonic_ns()}'
    uid = _uid() if level in ('namespaces', 'landlock+uid') else None
    self._groups = cgroup.create(name, self._memory, 1 + processes)
    self._counters = cgroup.Counters(self._groups)
    self._kills = 0
    self._seconds = 0.0  # That the groups had used before this job.
    self._last: dict | None = None  # A reply that nobody has seen.
    self._control, theirs = socket.socketpair(
      socket.AF_UNIX, socket.SOCK_SEQPACKET
    )
    self._folder = ''
    with theirs:
      self._process = _start(theirs, self._jail(name, uid), jobs, modules)
    self._wait_ready()

  def _jail(self, name: str, uid: int | None) -> Jail:
    """Makes the places of a jail where namespaces do not."""
    home, scratch = namespaces.HOME, namespaces.scratch()
    if self.level != 'namespaces':
      self._folder, home, scratch = make_folders(f'{name}_', uid)
    groups = tuple(self._groups)
    return Jail(self.level, uid, home, scratch, groups, self._counters.time)

  def _wait_ready(self) -> None:
    try:
      ready = self._reply(START_SECONDS)
      if 'error' in ready:
        raise SandboxError(ready['error'])
    except BaseException:
      self.close()
      raise

  def fileno(self) -> int:
    """Returns what is readable once a job has ended."""
    return self._control.fileno()

  def start(self, role: str, limits: Limits, descriptors: list[int]) -> None:
    """Starts a job; `finish` must follow.

    Args:
      role: What the child becomes: known to the jobs of this sandbox.
      limits: Of the child; its memory is the program's alone.
      descriptors: Handed to the child; ours stay open.
    """
    fields = dataclasses.asdict(limits)
    fields['memory'] += _INTERPRETER
    job = {'role': role, 'limits': fields}
    self._send(job, descriptors)

  def stop(self) -> None:
    """Ends the job now, if it has not ended by itself; `finish` must follow."""
    self._send({})

  def share(self) -> Share | None:
    """Returns what the job has had so far, or None if it has ended."""
    if self._last is None:
      self._send({'share': True})
      reply = self._reply(END_SECONDS)
      if 'waited' in reply:
        return Share(self._used(reply['used']), reply['waited'])
      self._last = reply  # It has just ended.
    return None

  def finish(self) -> Ended:
    """Waits for the end of the job and of every process that it has left."""
    reply, self._last = self._last or self._reply(END_SECONDS), None
    if not (reply['confined'] or reply['stopped']):
      raise SandboxError('A child could not be locked in.')
    kills = self._counters.memory_kills()
    out_of_memory = kills > self._kills
    self._kills = kills
    used = self._used(reply['cpu'])
    self._seconds += used
    return Ended(reply['status'], used, reply['stopped'], out_of_memory)

  def close(self) -> None:
    """Ends the fork server and all that it has left."""
    self._control.close()
    try:
      self._process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
      self._process.kill()
      self._process.wait()
    self._counters.close()
    cgroup.remove(self._groups)
    if self._folder:
      shutil.rmtree(self._folder, ignore_errors=True)

  def _used(self, seen: float) -> float:
    """Returns the CPU time of a job: what its group has counted, or was seen.

    Only a group counts those who ended without anyone waiting for them.
    """
    if not self._counters.time:
      return seen
    return self._counters.seconds() - self._seconds

  def _send(self, message: dict, descriptors: Sequence[int] = ()) -> None:
    data = json.dumps(message).encode()
    try:
      socket.send_fds(self._control, [data], list(descriptors))
    except OSError as error:
      raise SandboxError(f'The fork server is gone: {error}') from error

  def _reply(self, seconds: float) -> dict:
    poll = select.poll()
    poll.register(self._control, select.POLLIN)
    try:
      answered = poll.poll(seconds * 1000)
      message = self._control.recv(_MESSAGE) if answered else b''
    except ConnectionResetError:  # It died with a message of ours unread.
      message = b''
    if not message:
      raise SandboxError('The fork server does not answer.')
    return json.loads(message)


def memory_file(text: str, on_exit: contextlib.ExitStack) -> int:
  """Returns the descriptor of a new file to hand to a job, at its start."""
  descriptor = os.memfd_create('rest', os.MFD_CLOEXEC)
  on_exit.callback(os.close, descriptor)
  with open(descriptor, 'wb', closefd=False) as file:
    file.write(text.encode())
  os.lseek(descriptor, 0, os.SEEK_SET)
  return descriptor


def sweep() -> None:
  """Removes what verifiers that were killed have left on the host."""
  cgroup.sweep(PREFIX)
  for path in cgroup.stale(pathlib.Path(tempfile.gettempdir()), PREFIX):
    shutil.rmtree(path, ignore_errors=True)


def levels() -> tuple[str, ...]:
  """Returns the levels worth trying as this user, strongest first."""
  return LEVELS if os.getuid() == 0 else (LEVELS[0], *LEVELS[2:])


def _start(
  theirs: socket.socket, jail: Jail, jobs: str, modules: Sequence[str]
) -> subprocess.Popen:
  root = str(pathlib.Path(__file__).resolve().parents[3])
  number = str(theirs.fileno())
  setup = dataclasses.asdict(jail) | {'jobs': jobs, 'modules': modules}
  arguments = [number, json.dumps(setup), jobs.rpartition('.')[0], root]
  # Neither -I, which would ignore PYTHONHASHSEED, nor -S, which would hide
  # site-packages; -s and -P keep the user's own files out.
  return subprocess.Popen(
    [sys.executable, '-s', '-P', '-B', '-c', _BOOT, *arguments],
    stdin=subprocess.DEVNULL,
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
    env=_ENVIRONMENT,
    pass_fds=[theirs.fileno()],
    start_new_session=True,
  )


def _uid() -> int | None:
  """Returns a user that nobody else has, nor the next one, where we are root.

  Limits on processes count all processes of a user, so that no two sandboxes of
  a host may share one. The id of this process makes it unique.
  """
  if os.getuid() != 0:
    return None
  own = os.getpid() * USERS + 2 * next(_users) % USERS
  line = pathlib.Path('/proc/self/uid_map').read_text().splitlines()[0]
  first, _, count = map(int, line.split())
  if count >= 1 << 31:
    return FIRST_USER + own
  # A user namespace: far from the container's own users, as far as it goes.
  start = first + count // 4
  return start + own % (count - count // 4 - 1)
