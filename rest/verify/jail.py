"""What locks one forked process in, at each level of isolation.

`Jail` is what the verifier decides when a sandbox starts; `Limits` comes with
every program. Nothing here depends on the program itself.
"""

import contextlib
import math
import os
import resource
import shutil
import signal
import tempfile
from dataclasses import dataclass

from rest.verify import kernel, landlock, namespaces, seccomp

# Strongest first. What each rests on, besides rlimits and seccomp:
LEVELS = (
  'namespaces',  # Own mounts, processes, network; own user where root.
  'landlock+uid',  # A user of its own, Landlock; needs root.
  'landlock',  # Landlock.
  'rlimits',  # Nothing: refused unless asked for.
)
SLACK = 64  # Processes of our user that may come while a sandbox lives.
_STACK = 64 << 20
_OPEN_FILES = 256


@dataclass(frozen=True, slots=True)
class Jail:
  """Where the programs of one sandbox run.

  Attributes:
    level: One of LEVELS.
    uid: The user that programs run as, or None for the verifier's own.
    scratch: The folder that they may write to.
    groups: Control groups of the sandbox.
  """

  level: str
  uid: int | None
  scratch: str
  groups: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Limits:
  """What one program may use.

  Attributes:
    cpu: Seconds of CPU time. The verifier sees to it; the kernel, whose limit
      counts by clock ticks and may be a third too strict on a busy host, only
      ends what is far beyond.
    memory: Bytes of address space, for each process.
    processes: Processes and threads of its user.
    file: Bytes of any one file, its output included.
  """

  cpu: float
  memory: int
  processes: int
  file: int


class Warden:
  """Locks in the children of one sandbox, and ends them."""

  def __init__(self, jail: Jail):
    self.jail = jail
    self._filter = b''
    self._shares_user = False
    self._others = 0  # Processes of our user that are none of the program's.
    landlocked = jail.level.startswith('landlock')
    if jail.level == 'namespaces':
      self._filter = seccomp.build(shares_files=False, shares_user=False)
    elif landlocked:
      abi = landlock.version()
      if not abi:
        raise OSError('This kernel has no Landlock.')
      self._shares_user = jail.uid is None and abi < 6
      if not self._shares_user:
        self._filter = seccomp.build(shares_files=True, shares_user=False)
    if jail.level != 'namespaces':
      kernel.adopt_orphans()
      if jail.uid is None:
        self._others = _count_threads() + SLACK

  def confine(self, limits: Limits) -> None:
    """Locks this process in, for ever; it has been forked for a program."""
    os.setsid()
    _set_limits(limits, self._others)
    with open('/proc/self/oom_score_adj', 'w') as file:
      file.write('1000')  # It dies for want of memory before we do.
    level, uid = self.jail.level, self.jail.uid
    rules = None
    if level.startswith('landlock'):
      devices = [f'/dev/{x}' for x in ('null', 'zero', 'full')]
      sources = ['/dev/random', '/dev/urandom']
      rules = landlock.build(
        [*namespaces.readable(), *sources], [self.jail.scratch, *devices]
      )
    if uid is not None:
      os.setgroups([])
      os.setresgid(uid, uid, uid)
      os.setresuid(uid, uid, uid)
    else:
      kernel.drop_capabilities()
    kernel.forgo_privileges()
    if rules is not None:
      landlock.restrict(rules)
      os.close(rules)
    if level != 'rlimits':
      seccomp.install(
        self._filter or seccomp.build(shares_files=True, shares_user=True)
      )
    kernel.set_dumpable(True)  # Else /proc/self is not its own.

  def end(self) -> None:
    """Kills and reaps every process of the sandbox but this one."""
    if self.jail.level == 'namespaces':
      _kill_all()
    elif self.jail.uid is not None:
      _kill_all_of(self.jail.uid)
    while True:
      if self.jail.uid is None and self.jail.level != 'namespaces':
        _kill_children()
      try:
        os.waitpid(-1, 0)
      except ChildProcessError:
        break
    if self.jail.level == 'namespaces':
      namespaces.renew_scratch()
    else:
      _empty(self.jail.scratch)


def _set_limits(limits: Limits, others: int) -> None:
  values = {
    resource.RLIMIT_CPU: math.ceil(4 * limits.cpu),
    resource.RLIMIT_AS: limits.memory,
    resource.RLIMIT_NPROC: limits.processes + others,
    resource.RLIMIT_FSIZE: limits.file,
    resource.RLIMIT_STACK: _STACK,
    resource.RLIMIT_NOFILE: _OPEN_FILES,
    resource.RLIMIT_CORE: 0,
    resource.RLIMIT_MEMLOCK: 1 << 16,
    resource.RLIMIT_MSGQUEUE: 0,
  }
  for kind, value in values.items():
    _, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY:
      value = min(value, hard)
    resource.setrlimit(kind, (value, value))


def _kill_all() -> None:
  # None is left where the program has ended by itself.
  with contextlib.suppress(ProcessLookupError):
    os.kill(-1, signal.SIGKILL)


def _kill_all_of(uid: int) -> None:
  """Kills all processes of a user, by a process of that user."""
  pid = os.fork()
  if pid == 0:
    os.setresuid(uid, uid, uid)
    _kill_all()  # Spares itself.
    os._exit(0)
  os.waitpid(pid, 0)


def _kill_children() -> None:
  """Kills the children; theirs become ours, and are killed in the next turn."""
  with open(f'/proc/self/task/{os.getpid()}/children') as file:
    for pid in file.read().split():
      os.kill(int(pid), signal.SIGKILL)


def _count_threads() -> int:
  """Returns how many threads processes of our user have."""
  count = 0
  for name in os.listdir('/proc'):
    if name.isdecimal():
      try:
        if os.stat(f'/proc/{name}').st_uid == os.getuid():
          count += len(os.listdir(f'/proc/{name}/task'))
      except OSError:
        pass  # It has just ended.
  return count


def _empty(folder: str) -> None:
  """Empties a folder, however deep a program has made it."""
  names = 0
  while entries := list(os.scandir(folder)):
    for entry in entries:
      if not entry.is_dir(follow_symlinks=False):
        os.unlink(entry.path)
        continue
      # Folders come up one floor, so that no path grows too long.
      for inner in list(os.scandir(entry.path)):
        names += 1
        if inner.is_dir(follow_symlinks=False):
          os.rename(inner.path, f'{folder}/.{os.getpid()}_{names}')
        else:
          os.unlink(inner.path)
      os.rmdir(entry.path)


def make_scratch(prefix: str, uid: int | None) -> str:
  """Returns a new folder for a sandbox that sees the host's files."""
  folder = tempfile.mkdtemp(prefix=prefix)
  if uid is not None:
    shutil.chown(folder, uid, uid)
  return folder
