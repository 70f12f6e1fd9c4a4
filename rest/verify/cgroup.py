"""Control groups: one limit on memory and processes for a whole sandbox.

Version 1 and 2 are used where this process may write to them, and done without
elsewhere.
"""

import contextlib
import os
import pathlib

_ROOT = pathlib.Path('/sys/fs/cgroup')
# Controller: its files for the limit, in versions 2 and 1, and the unlimited
# swap that has to follow the memory limit.
_MEMORY = (('memory.max', 'memory.swap.max'), ('memory.limit_in_bytes',))
_PROCESSES = (('pids.max',), ('pids.max',))


def create(name: str, memory: int, processes: int) -> list[str]:
  """Returns the groups made, for `join`; empty where the host allows none.

  Args:
    name: Of the groups; begins with `prefix(...)` of the process that owns
      them.
    memory: Bytes that all processes together may hold, files in tmpfs included.
    processes: How many processes and threads there may be.
  """
  limits = {'memory': (_MEMORY, memory), 'pids': (_PROCESSES, processes)}
  made: list[str] = []
  for controllers, own in _own_groups():
    version = 1 if controllers else 0  # The place in the tables above.
    wanted = [c for c in limits if c in controllers or not controllers]
    for parent in (own, own.parent):
      group = parent / name
      if wanted and _is_group(parent) and _make(group):
        held = [_limit(group, version, *limits[c]) for c in wanted]
        if any(held):
          made.append(str(group))
          break
        group.rmdir()
  return made


def join(groups: list[str]) -> None:
  """Moves this process, and what it will fork, to groups."""
  for group in groups:
    pathlib.Path(group, 'cgroup.procs').write_text('0')


def memory_kills(groups: list[str]) -> int:
  """Returns how many processes of the groups died for want of memory."""
  for group in groups:
    for name in ('memory.events', 'memory.oom_control'):
      file = pathlib.Path(group, name)
      if file.exists():
        fields = dict(x.split() for x in file.read_text().splitlines())
        return int(fields.get('oom_kill', 0))
  return 0


def remove(groups: list[str]) -> None:
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


def _limit(
  group: pathlib.Path,
  version: int,
  files: tuple[tuple[str, ...], ...],
  value: int,
) -> bool:
  """Sets the first file of a version to the value, and the others to 0."""
  first, *others = files[version]
  try:
    (group / first).write_text(str(value))
    for file in others:
      if (group / file).exists():
        (group / file).write_text('0')
  except OSError:
    return False  # The controller is not enabled here.
  return True
