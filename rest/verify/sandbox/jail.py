"""What locks one forked process in, at each level of isolation.

`Jail` is what the verifier decides when a sandbox starts; `Limits` comes with
every program. Nothing here depends on the program itself.

Stops: raising a limit, signals and files of others, more processes or memory
than allowed. Does not stop: an attack on the kernel.
"""

import contextlib
import math
import os
import resource
import shutil
import signal
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass

from rest.verify.sandbox import cgroup, landlock, linux, namespaces, seccomp

# Strongest first. What each rests on, besides rlimits and seccomp:
LEVELS = (
  'namespaces',  # Own mounts, processes, network; own user where root.
  'landlock+uid',  # A user of its own, Landlock; needs root.
  'landlock',  # Landlock.
  'rlimits',  # Nothing: refused unless asked for.
)
PROGRAM = 'program.py'  # A program's file, in its home.
SLACK = 64  # Processes of our user that may come while a sandbox lives.
_STACK = 64 << 20
_OPEN_FILES = 256


@dataclass(frozen=True, slots=True)
class Jail:
  """Where the programs of one sandbox run.

  Attributes:
    level: One of LEVELS.
    uid: The user that programs run as, or None for the verifier's own. The next
      one is the sandbox's, too.
    home: The folder in which a program's file stands; writable too.
    scratch: The folder that they may write to.
    groups: Control groups of the programs.
    counted: Whether one of these groups counts their CPU time.
  """

  level: str
  uid: int | None
  home: str
  scratch: str
  groups: tuple[str, ...]
  counted: bool


@dataclass(frozen=True, slots=True)
class Limits:
  """What one program may use.

  Attributes:
    cpu: Seconds of CPU time. The verifier sees to it; the kernel, whose limit
      counts by clock ticks and may be a third too strict on a busy host, only
      ends what is far beyond.
    memory: Bytes of address space, for each process.
    processes: Processes and threads of its user, besides its first.
    file: Bytes of any one file, its output included.
  """

  cpu: float
  memory: int
  processes: int
  file: int


class Warden:
  """Locks in the children of one sandbox, and ends them."""

  def __init__(self, jail: Jail, doors: Sequence[int]):
    """Prepares what all children have in common.

    Args:
      jail: Where the children are to run.
      doors: Of the jail's groups, from `cgroup.open_doors`.

    Raises:
      OSError: The host does not offer this level.
    """
    self.jail = jail
    self._doors = doors
    self._filter = b''
    self._shares_user = False
    self._others = 0  # Processes of our user that are none of the program's.
    if jail.level.startswith('landlock'):
      abi = landlock.version()
      if not abi:
        raise OSError('This kernel has no Landlock.')
      self._shares_user = jail.uid is None and abi < 6
    if jail.level != 'rlimits' and not self._shares_user:
      self._filter = self._build_filter()
    if jail.level != 'namespaces':
      linux.adopt_orphans()
      if jail.uid is None:
        self._others = _count_threads() + SLACK

  def _build_filter(self) -> bytes:
    return seccomp.build(
      shares_files=self.jail.level != 'namespaces',
      shares_user=self._shares_user,
      hides_children=not self.jail.counted,
    )

  def admit(self) -> None:
    """Counts this process among the programs, before it does anything."""
    cgroup.join(self._doors)

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
        [*namespaces.readable(), *sources],
        [self.jail.home, self.jail.scratch, *devices],
      )
    if uid is not None:
      os.setgroups([])
      os.setresgid(uid, uid, uid)
      os.setresuid(uid, uid, uid)
    else:
      linux.drop_capabilities()
    linux.forgo_privileges()
    if rules is not None:
      landlock.restrict(rules)
      os.close(rules)
    if level != 'rlimits':
      seccomp.install(self._filter or self._build_filter())
    linux.make_dumpable()  # Else /proc/self is not its own.

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
      namespaces.renew_scratch(f'{self.jail.home}/{PROGRAM}')
    else:
      _empty(self.jail.home)
      _empty(self.jail.scratch)


def _set_limits(limits: Limits, others: int) -> None:
  values = {
    resource.RLIMIT_CPU: math.ceil(4 * limits.cpu),
    resource.RLIMIT_AS: limits.memory,
    resource.RLIMIT_NPROC: 1 + limits.processes + others,
    resource.RLIMIT_FSIZE: limits.file,
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
  # The only limit that honest programs raise; the address space bounds it too.
  _, hard = resource.getrlimit(resource.RLIMIT_STACK)
  soft = _STACK if hard == resource.RLIM_INFINITY else min(_STACK, hard)
  resource.setrlimit(resource.RLIMIT_STACK, (soft, hard))


def _kill_all() -> None:
  # None is left where the program has ended by itself.
  with contextlib.suppress(ProcessLookupError):
    os.kill(-1, signal.SIGKILL)


def _kill_all_of(uid: int) -> None:
  """Kills all processes of a user, by one that these can do nothing about.

  What a process may signal goes by its effective user; who may signal it, by
  its real and saved one: that is the next user, which nobody else has.
  """
  pid = os.fork()
  if pid == 0:
    try:
      os.setresuid(uid + 1, uid, uid + 1)
      _kill_all()  # Spares itself.
    finally:
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
    with contextlib.suppress(OSError):  # It has just ended.
      if name.isdecimal() and os.stat(f'/proc/{name}').st_uid == os.getuid():
        count += len(os.listdir(f'/proc/{name}/task'))
  return count


def _empty(folder: str) -> None:
  """Empties a folder, however deep a program has made it."""
  names = 0
  while entries := list(os.scandir(folder)):
    for entry in entries:
      if not entry.is_dir(follow_symlinks=False):
        os.unlink(entry.path)
        continue
      os.chmod(entry.path, 0o700)  # It may be made unreadable.
      # Folders come up one floor, so that no path grows too long.
      for inner in list(os.scandir(entry.path)):
        names += 1
        if inner.is_dir(follow_symlinks=False):
          os.chmod(inner.path, 0o700)
          os.rename(inner.path, f'{folder}/.{os.getpid()}_{names}')
        else:
          os.unlink(inner.path)
      os.rmdir(entry.path)


def make_folders(prefix: str, uid: int | None) -> tuple[str, str, str]:
  """Returns a new folder, and in it the home and the scratch of a sandbox.

  For those that see the host's files. Programs cannot change the outer one, and
  so not put the inner ones elsewhere.
  """
  folder = tempfile.mkdtemp(prefix=prefix)
  os.chmod(folder, 0o711)
  inner = f'{folder}/program', f'{folder}/scratch'
  for path in inner:
    os.mkdir(path, 0o700)
    if uid is not None:
      shutil.chown(path, uid, uid)
  return folder, *inner
