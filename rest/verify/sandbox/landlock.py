"""Landlock: a list of the only files that a process may touch, for ever.

Needs no privileges, only Linux 5.13. Newer kernels also keep TCP ports,
abstract sockets and signals inside.
"""

import ctypes
import os
import stat
import struct

from rest.verify.sandbox import linux

_CREATE, _ADD, _RESTRICT = 444, 445, 446
_VERSION = 1  # Flag: answer the version instead of creating.
_PATH_BENEATH = 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIRECTORY = 1, 2, 4, 8
_MAKE_SOCKET_OR_DEVICE = 1 << 6 | 1 << 9 | 1 << 11  # char, socket, block.
_FIRST = (1 << 13) - 1
_REFER, _TRUNCATE, _IOCTL = 1 << 13, 1 << 14, 1 << 15


def version() -> int:
  """Returns the kernel's version of Landlock; 0 where it has none."""
  try:
    return linux.call('syscall', _CREATE, None, 0, _VERSION)
  except OSError:
    return 0


def build(readable: list[str], writable: list[str]) -> int:
  """Returns a descriptor of the rules, for `restrict`.

  Args:
    readable: Files and trees that may be read and executed.
    writable: Files and trees that may also be changed.
  """
  abi = version()
  files = _FIRST
  for since, right in ((2, _REFER), (3, _TRUNCATE), (5, _IOCTL)):
    files |= right if abi >= since else 0
  network = 0b11 if abi >= 4 else 0
  scopes = 0b11 if abi >= 6 else 0
  size = 24 if abi >= 6 else 16 if abi >= 4 else 8
  attributes = struct.pack('QQQ', files, network, scopes)[:size]
  rules = linux.call('syscall', _CREATE, attributes, size, 0)
  for path in readable:
    _allow(rules, path, _EXECUTE | _READ_FILE | _READ_DIRECTORY)
  for path in writable:
    _allow(rules, path, files & ~_MAKE_SOCKET_OR_DEVICE)
  return rules


def restrict(rules: int) -> None:
  """Applies rules to this process; it must have no new privileges."""
  linux.call('syscall', _RESTRICT, rules, 0)


def _allow(rules: int, path: str, rights: int) -> None:
  place = os.open(path, os.O_PATH | os.O_CLOEXEC)
  if not stat.S_ISDIR(os.fstat(place).st_mode):
    rights &= _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL
  rule = struct.pack('=Qi', rights, place)
  pointer = ctypes.create_string_buffer(rule, len(rule))
  try:
    linux.call('syscall', _ADD, rules, _PATH_BENEATH, pointer, 0)
  finally:
    os.close(place)
