"""The Linux calls that Python does not wrap, as functions that raise OSError.

Numbers above 423 are the same on every architecture; the others are reached
through the C library.
"""

import ctypes
import os

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
_MS_BIND = 0x1000
_MS_REC = 0x4000
_MS_PRIVATE = 0x40000
_MNT_DETACH = 0x2
_MOUNT_ATTR_RDONLY = 0x1
_MOUNT_ATTR_NOSUID = 0x2
_AT_FDCWD = -100
_AT_RECURSIVE = 0x8000
_SYS_MOUNT_SETATTR = 442

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


class _MountAttr(ctypes.Structure):
  _fields_ = tuple(
    (name, ctypes.c_uint64) for name in ('set', 'clear', 'prop', 'userns')
  )


def call(name: str, *arguments: int | bytes | object | None) -> int:
  """Calls a C function that answers -1 and sets errno when it fails."""
  converted = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
  result = getattr(_libc, name)(*converted)
  if result == -1:
    error = ctypes.get_errno()
    raise OSError(error, f'{name}: {os.strerror(error)}')
  return result


def unshare(flags: int) -> None:
  """Moves this process (for CLONE_NEWPID: its children) to new namespaces."""
  call('unshare', flags)


def make_private() -> None:
  """Keeps later mounts of this mount namespace out of all others."""
  call('mount', None, b'/', None, _MS_REC | _MS_PRIVATE, None)


def mount(kind: str, target: str, flags: int, options: str = '') -> None:
  """Mounts a new tmpfs or proc."""
  name, place = kind.encode(), target.encode()
  call('mount', name, place, name, flags, options.encode())


def bind(source: str, target: str) -> None:
  """Shows a file or a tree at a second place, read-only with all below it."""
  paths = source.encode(), target.encode()
  call('mount', *paths, None, _MS_BIND | _MS_REC, None)
  make_read_only(target, _AT_RECURSIVE)


def make_read_only(target: str, flags: int = 0) -> None:
  """Makes a mount read-only, keeping the flags it has (Linux 5.12)."""
  attributes = _MountAttr(_MOUNT_ATTR_RDONLY | _MOUNT_ATTR_NOSUID, 0, 0, 0)
  call(
    'syscall',
    _SYS_MOUNT_SETATTR,
    _AT_FDCWD,
    target.encode(),
    flags,
    ctypes.byref(attributes),
    ctypes.sizeof(attributes),
  )


def pivot_root(new: str) -> None:
  """Makes a mount the root, and forgets the old root."""
  os.chdir(new)
  # With both names the same the old root ends up on top of the new one.
  call('pivot_root', b'.', b'.')
  unmount('.')
  os.chdir('/')


def unmount(target: str) -> None:
  """Detaches a mount now; it is freed when nobody uses it any more."""
  call('umount2', target.encode(), _MNT_DETACH)


def die_with_parent(signal: int) -> None:
  """Asks for a signal when the thread that forked this process ends."""
  call('prctl', _PR_SET_PDEATHSIG, signal, 0, 0, 0)


def make_dumpable() -> None:
  """Lets processes of the same user look into this one."""
  call('prctl', _PR_SET_DUMPABLE, 1, 0, 0, 0)


def adopt_orphans() -> None:
  """Makes orphaned descendants children of this process."""
  call('prctl', _PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def forgo_privileges() -> None:
  """Makes set-user-id bits and file capabilities mean nothing, for ever."""
  call('prctl', _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def drop_capabilities() -> None:
  """Empties all capability sets of this process."""
  header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
  call('prctl', _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
  call('capset', header, (ctypes.c_uint32 * 6)())
