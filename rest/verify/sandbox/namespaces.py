"""A private world for a sandbox: own processes, files, network and host name.

Made once a slot, not once a program. As root it needs CAP_SYS_ADMIN; as another
user, user namespaces.
"""

import contextlib
import os
import pathlib
import signal
import sys

from rest.verify.sandbox import linux

_SHARED_MEMORY = '/dev/shm'  # Semaphores live there.
HOME = '/program'  # The folder in which a program's file stands.
_ROOT = '/sys'  # Where the new root is built: exists, and is never shown.
_SCRATCH_OPTIONS = 'size=64m,nr_inodes=4096,mode=1777'
_FLAGS = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC
_DEVICES = ('null', 'zero', 'full', 'random', 'urandom')
_DEVICE_LINKS = {
  'fd': '/proc/self/fd',
  'stdin': '/proc/self/fd/0',
  'stdout': '/proc/self/fd/1',
  'stderr': '/proc/self/fd/2',
}
_SYSTEM = ('/usr', '/lib', '/lib32', '/lib64', '/bin', '/etc/ld.so.cache')


def readable() -> list[str]:
  """Returns the files that a program may read: the interpreter's."""
  prefixes = {sys.prefix, sys.base_prefix, sys.exec_prefix}
  own = [
    os.path.join(prefix, name)
    for prefix in sorted(prefixes)
    for name in ('bin', 'lib', 'lib64', 'pyvenv.cfg')
  ]
  found: list[str] = []
  for path in [*_SYSTEM, *own]:
    covered = any(path.startswith(f'{x}/') for x in found)
    if os.path.exists(path) and not covered and path not in found:
      found.append(path)
  return found


def scratch() -> str:
  """Returns the folder that programs may write to."""
  below = any(path.startswith('/tmp/') for path in readable())
  return '/scratch' if below else '/tmp'


def enter(control: int) -> None:
  """Moves to new namespaces; returns in the process that is their first.

  The calling process stays outside, waits for that one, and ends with it.

  Args:
    control: A descriptor that only the first process keeps.
  """
  uid, gid = os.getuid(), os.getgid()
  # Not control groups: programs are moved to theirs from here, and see none.
  flags = linux.CLONE_NEWNS | linux.CLONE_NEWPID | linux.CLONE_NEWNET
  flags |= linux.CLONE_NEWIPC | linux.CLONE_NEWUTS
  linux.unshare(flags if uid == 0 else flags | linux.CLONE_NEWUSER)
  if uid != 0:
    pathlib.Path('/proc/self/setgroups').write_text('deny')
    pathlib.Path('/proc/self/uid_map').write_text(f'{uid} {uid} 1')
    pathlib.Path('/proc/self/gid_map').write_text(f'{gid} {gid} 1')
  pid = os.fork()
  if pid:
    os.close(control)
    os.waitpid(pid, 0)
    os._exit(0)
  linux.die_with_parent(signal.SIGKILL)
  linux.make_private()
  _build_root()


def renew_scratch(usual: str) -> None:
  """Empties the writable places (one is the working directory).

  Args:
    usual: Path of a file that is mostly there, and faster to remove alone.
  """
  with contextlib.suppress(OSError):  # A program may have made it a folder.
    os.unlink(usual)
  work = os.getcwd()
  for path in (HOME, _SHARED_MEMORY, work):
    os.chmod(path, 0o1777)  # The program may be its owner.
    if os.listdir(path):
      linux.unmount(path)
      linux.mount('tmpfs', path, _FLAGS, _SCRATCH_OPTIONS)
  os.chdir(work)


def _build_root() -> None:
  paths = readable()
  linux.mount('tmpfs', _ROOT, linux.MS_NOSUID, 'size=1m,mode=755')
  for path in paths:
    _show(path)
  writable = (scratch(), HOME, _SHARED_MEMORY)
  for name in ('/proc', '/dev', *writable):
    os.makedirs(f'{_ROOT}{name}', exist_ok=True)
  for name in _DEVICES:
    _show(f'/dev/{name}')
  for name, target in _DEVICE_LINKS.items():
    os.symlink(target, f'{_ROOT}/dev/{name}')
  # Some containers allow none: then programs see an empty folder.
  with contextlib.suppress(PermissionError):
    linux.mount('proc', f'{_ROOT}/proc', _FLAGS, 'hidepid=2,subset=pid')
  for path in writable:
    linux.mount('tmpfs', f'{_ROOT}{path}', _FLAGS, _SCRATCH_OPTIONS)
  linux.pivot_root(_ROOT)
  linux.make_read_only('/')
  os.chdir(writable[0])


def _show(path: str) -> None:
  """Makes a file, a tree or a symbolic link of the host appear, read-only."""
  place = pathlib.Path(f'{_ROOT}{path}')
  if os.path.lexists(place):
    return
  place.parent.mkdir(parents=True, exist_ok=True)
  if os.path.islink(path):
    place.symlink_to(os.readlink(path))
    return
  if os.path.isdir(path):
    place.mkdir()
  else:
    place.touch()
  linux.bind(path, str(place))
