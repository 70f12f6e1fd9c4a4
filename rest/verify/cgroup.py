"""Control groups: limits on memory and processes of all of a sandbox together,
and a count of its CPU time.

Version 1 and 2 are used where this process may write to them, and done without
elsewhere. The fork server stays outside: only programs are in the groups, so
that nothing else can be killed for a program's want of memory.
"""

import contextlib
import os
import pathlib
from collections.abc import Sequence

_ROOT = pathlib.Path('/sys/fs/cgroup')
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


def cpu_seconds(groups: Sequence[str]) -> float | None:
  """Returns the CPU time of all that was ever in the groups, if counted."""
  for group in groups:
    for name, unit in _CPU_FILES.items():
      file = pathlib.Path(group, name)
      if file.exists():
        # Either one number, or first `usage_usec NUMBER`.
        return unit * int(file.read_text().splitlines()[0].split()[-1])
  return None


def memory_kills(groups: Sequence[str]) -> int:
  """Returns how many processes of the groups died for want of memory."""
  for group in groups:
    for name in ('memory.events', 'memory.oom_control'):
      file = pathlib.Path(group, name)
      if file.exists():
        fields = dict(x.split() for x in file.read_text().splitlines())
        return int(fields.get('oom_kill', 0))
  return 0


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
