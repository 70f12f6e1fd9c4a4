"""Control groups: limits on memory and processes of all of a sandbox together,
and a count of its CPU time.

Version 1 and 2 are used where this process may write to them, and done without
elsewhere. The fork server stays outside: only programs are in the groups, so
that nothing else can be killed for a program's want of memory.
"""

import contextlib
import os
import pathlib
from collections.abc import Iterable, Sequence

_ROOT = pathlib.Path('/sys/fs/cgroup')
_PAGE = 4096  # Bytes; no file that we read is longer.
# Controller: its files in versions 2 and 1, and by what the limit is multiplied
# there. Swap counts too.
_LIMITS = {
  'memory': (
    (('memory.max', 1), ('memory.swap.max', 0)),
    (('memory.limit_in_bytes', 1), ('memory.memsw.limit_in_bytes', 1)),
  ),
  'pids': ((('pids.max', 1),), (('pids.max', 1),)),
}
_CPU = 'cpuacct'  # Of version 1; version 2 always counts.
_CPU_FILES = {'cpu.stat': 1e-6, 'cpuacct.usage': 1e-9}  # And their units.


def create(name: str, memory: int, processes: int) -> list[str]:
  """Returns the groups made, for `open_doors`; empty where none can be made.

  Args:
    name: Of the groups; begins with PREFIX_PID_ of the process that owns them.
    memory: Bytes that all processes together may hold, files in tmpfs included.
    processes: How many processes and threads there may be.
  """
  values = {'memory': memory, 'pids': processes, _CPU: 0}
  missing = set(values)
  made: list[str] = []
  for controllers, own in _own_groups():
    version = 1 if controllers else 0  # The place in the tables above.
    wanted = missing & set(controllers) if controllers else missing
    for parent in (own, own.parent):
      group = parent / name
      if wanted and _is_group(parent) and _make(group):
        held = {c for c in wanted if _hold(group, version, c, values[c])}
        if held:
          made.append(str(group))
          missing = missing - held
          break
        group.rmdir()
  return made


def open_doors(groups: Sequence[str]) -> list[int]:
  """Returns descriptors for `join`, which outlast a change of the mounts."""
  flags = os.O_WRONLY | os.O_CLOEXEC
  return [os.open(f'{group}/cgroup.procs', flags) for group in groups]


def join(doors: Sequence[int]) -> None:
  """Moves this process, and what it will fork, to groups."""
  for door in doors:
    os.write(door, b'0')


class Counters:
  """What the kernel counts in groups, read from files that stay open.

  Attributes:
    time: Whether CPU time is counted.
  """

  def __init__(self, groups: Sequence[str]):
    self._time = _open_first(groups, _CPU_FILES)
    self._kills = _open_first(groups, ('memory.events', 'memory.oom_control'))
    self.time = self._time is not None

  def seconds(self) -> float:
    """Returns the CPU time of all that was ever in the groups."""
    assert self._time
    number, name = self._time
    # Either one number, or `usage_usec` and a number first.
    first = os.pread(number, _PAGE, 0).splitlines()[0]
    return _CPU_FILES[name] * int(first.split()[-1])

  def memory_kills(self) -> int:
    """Returns how many processes died for want of the groups' memory."""
    if not self._kills:
      return 0
    lines = os.pread(self._kills[0], _PAGE, 0).decode().splitlines()
    return int(dict(line.split() for line in lines).get('oom_kill', 0))

  def close(self) -> None:
    """Closes the files."""
    for opened in (self._time, self._kills):
      if opened:
        os.close(opened[0])
    self._time = self._kills = None


def _open_first(
  groups: Sequence[str], names: Iterable[str]
) -> tuple[int, str] | None:
  """Returns descriptor and name of the first of these files that exists."""
  for group in groups:
    for name in names:
      with contextlib.suppress(FileNotFoundError):
        return os.open(f'{group}/{name}', os.O_RDONLY | os.O_CLOEXEC), name
  return None


def remove(groups: Sequence[str]) -> None:
  """Removes groups whose processes have ended."""
  for group in groups:
    with contextlib.suppress(OSError):  # Still busy: a later sweep takes it.
      os.rmdir(group)


def sweep(prefix: str) -> None:
  """Removes groups of processes that ended without doing so."""
  for _, own in _own_groups():
    for parent in (own, own.parent):
      remove([str(g) for g in stale(parent, prefix)])


def stale(folder: pathlib.Path, prefix: str) -> list[pathlib.Path]:
  """Returns what is named PREFIX_PID_... in a folder, its process dead."""
  found = []
  for path in folder.glob(f'{prefix}_*_*'):
    pid = path.name.removeprefix(f'{prefix}_').split('_')[0]
    if pid.isdecimal() and not os.path.exists(f'/proc/{pid}'):
      found.append(path)
  return found


def _own_groups() -> list[tuple[list[str], pathlib.Path]]:
  """Returns controllers (none for version 2) and folder of each own group."""
  groups = []
  for line in pathlib.Path('/proc/self/cgroup').read_text().splitlines():
    _, controllers, path = line.split(':', 2)
    names = controllers.split(',') if controllers else []
    roots = [_ROOT / controllers] if names else [_ROOT, _ROOT / 'unified']
    for root in roots:
      if _is_group(root):
        groups.append((names, root / path.lstrip('/')))
  return groups


def _is_group(folder: pathlib.Path) -> bool:
  return (folder / 'cgroup.procs').exists()


def _make(group: pathlib.Path) -> bool:
  try:
    group.mkdir()
  except OSError:
    return False
  return True


def _hold(group: pathlib.Path, version: int, what: str, value: int) -> bool:
  """Returns whether a group counts CPU time, or limits what is asked for."""
  if what == _CPU:
    return (group / list(_CPU_FILES)[version]).exists()
  first, *others = _LIMITS[what][version]
  try:
    (group / first[0]).write_text(str(first[1] * value))
    for file, times in others:
      if (group / file).exists():
        (group / file).write_text(str(times * value))
  except OSError:
    return False  # The controller is not enabled here.
  return True
