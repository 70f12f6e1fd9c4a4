"""A system call filter: no network, no namespaces, less of the kernel.

A deny list, since files and processes are guarded by namespaces, users and
Landlock. Refused calls fail with EPERM, so that honest programs that merely
try (a C library, an import) go on.
"""

import ctypes
import errno
import os
import platform
import signal
import struct

from rest.verify.sandbox import linux

# Name: number on x86_64 and on aarch64; None where there is no such call.
_DENIED = {
  # The network, unix sockets included. socketpair stays, for asyncio.
  'socket': (41, 198),
  'connect': (42, 203),
  'bind': (49, 200),
  'listen': (50, 201),
  # Other processes.
  'ptrace': (101, 117),
  'process_vm_readv': (310, 270),
  'process_vm_writev': (311, 271),
  'process_madvise': (440, 440),
  'process_mrelease': (448, 448),
  'pidfd_getfd': (438, 438),
  'pidfd_send_signal': (424, 424),
  'kcmp': (312, 272),
  'setpriority': (141, 140),
  'ioprio_set': (251, 30),
  'sched_setscheduler': (144, 119),
  'sched_setparam': (142, 118),
  'sched_setattr': (314, 274),
  'sched_setaffinity': (203, 122),
  'migrate_pages': (256, 238),
  'move_pages': (279, 239),
  # Namespaces and mounts.
  'unshare': (272, 97),
  'setns': (308, 268),
  'chroot': (161, 51),
  'pivot_root': (155, 41),
  'mount': (165, 40),
  'umount2': (166, 39),
  'open_tree': (428, 428),
  'move_mount': (429, 429),
  'fsopen': (430, 430),
  'fsconfig': (431, 431),
  'fsmount': (432, 432),
  'fspick': (433, 433),
  'mount_setattr': (442, 442),
  'name_to_handle_at': (303, 264),
  'open_by_handle_at': (304, 265),
  # What outlives a process or is shared between users.
  'shmget': (29, 194),
  'shmat': (30, 196),
  'semget': (64, 190),
  'msgget': (68, 186),
  'mq_open': (240, 180),
  'mq_unlink': (241, 181),
  'add_key': (248, 217),
  'request_key': (249, 218),
  'keyctl': (250, 219),
  # Large or dangerous parts of the kernel.
  'bpf': (321, 280),
  'perf_event_open': (298, 241),
  'userfaultfd': (323, 282),
  'io_uring_setup': (425, 425),
  'io_uring_enter': (426, 426),
  'io_uring_register': (427, 427),
  'fanotify_init': (300, 262),
  'fanotify_mark': (301, 263),
  'memfd_secret': (447, 447),
  'mbind': (237, 235),
  'set_mempolicy': (238, 237),
  'personality': (135, 92),
  'modify_ldt': (154, None),
  'iopl': (172, None),
  'ioperm': (173, None),
  'uselib': (134, None),
  'lookup_dcookie': (212, 18),
  'vhangup': (153, 58),
  'syslog': (103, 116),
  # The host.
  'init_module': (175, 105),
  'finit_module': (313, 273),
  'delete_module': (176, 106),
  'kexec_load': (246, 104),
  'kexec_file_load': (320, 294),
  'reboot': (169, 142),
  'sync': (162, 81),  # Nothing can end a process that waits for the host's
  'syncfs': (306, 267),  # disks.
  'swapon': (167, 224),
  'swapoff': (168, 225),
  'acct': (163, 89),
  'quotactl': (179, 60),
  'quotactl_fd': (443, 443),
  'settimeofday': (164, 170),
  'clock_settime': (227, 112),
  'adjtimex': (159, 171),
  'clock_adjtime': (305, 266),
  'sethostname': (170, 161),
  'setdomainname': (171, 162),
}
# Refused too where no mount namespace keeps the user's files apart: Landlock
# does not cover these.
_DENIED_ON_SHARED_FILES = {
  'truncate': (76, 45),  # Landlock covers it since version 3.
  'chmod': (90, None),
  'fchmod': (91, 52),
  'fchmodat': (268, 53),
  'fchmodat2': (452, 452),
  'chown': (92, None),
  'fchown': (93, 55),
  'lchown': (94, None),
  'fchownat': (260, 54),
  'utime': (132, None),
  'utimes': (235, None),
  'futimesat': (261, None),
  'utimensat': (280, 88),
  'setxattr': (188, 5),
  'lsetxattr': (189, 6),
  'fsetxattr': (190, 7),
  'removexattr': (197, 14),
  'lremovexattr': (198, 15),
  'fremovexattr': (199, 16),
}
# Refused where CPU time of children is only known once their parent has waited
# for them: who ignores SIGCHLD never does.
_SIGACTION = (13, 134)
# Refused where other processes have the program's user, unless aimed at its
# own process.
_SIGNALS = {'kill': (62, 129), 'tgkill': (234, 131)}
_OTHER_SIGNALS = {
  'tkill': (200, 130),
  'rt_sigqueueinfo': (129, 138),
  'rt_tgsigqueueinfo': (297, 240),
}

_MACHINES = {'x86_64': (0, 0xC000003E), 'aarch64': (1, 0xC00000B7)}
_PRCTL_SET_SECCOMP, _MODE_FILTER = 22, 2
_ALLOW = 0x7FFF0000
_KILL = 0x80000000
_REFUSE = 0x00050000 | errno.EPERM
_MISSING = 0x00050000 | errno.ENOSYS
_NAMESPACES = 0x7E020080  # Every CLONE_NEW* flag.
_LOAD, _RETURN = 0x20, 0x06
_JUMP, _EQUAL, _FROM, _MASKED = 0x05, 0x15, 0x35, 0x45
_NUMBER, _ARCHITECTURE, _ARGUMENT = 0, 4, 16  # Offsets; low half of arguments.

_Code = list[tuple[int, int, int, int]]  # Operation, two jumps, and a number.


def build(shares_files: bool, shares_user: bool, hides_children: bool) -> bytes:
  """Returns the filter as BPF code.

  Args:
    shares_files: Whether the program sees the mounts of the host.
    shares_user: Whether the program could signal processes of its user outside;
      then the filter holds for the process that builds it, and its threads.
    hides_children: Whether children that nobody waits for would not be counted.
  """
  column, architecture = _machine()
  denied = dict(_DENIED)
  if shares_files:
    denied |= _DENIED_ON_SHARED_FILES
  if shares_user:
    denied |= _OTHER_SIGNALS
  # What is done about each call; each ends in a return.
  answers: dict[int, _Code] = {
    numbers[column]: _answer(_REFUSE)
    for numbers in denied.values()
    if numbers[column] is not None
  }
  answers |= _by_argument(column, shares_user, hides_children)
  code = [
    (_LOAD, 0, 0, _ARCHITECTURE),
    (_EQUAL, 1, 0, architecture),
    (_RETURN, 0, 0, _KILL),
    (_LOAD, 0, 0, _NUMBER),
  ]
  if column == 0:  # The x32 calls have other numbers.
    code += [(_MASKED, 0, 1, 0x40000000), (_RETURN, 0, 0, _KILL)]
  code += _search(answers)
  return b''.join(struct.pack('=HBBI', *line) for line in code)


def _by_argument(
  column: int, shares_user: bool, hides_children: bool
) -> dict[int, _Code]:
  """Returns what is done about calls that are refused for some arguments."""
  answers = {
    # clone3 hides its flags in memory; the C library then falls back to clone.
    435: _answer(_MISSING),
    (56, 220)[column]: _refuse_if(0, _MASKED, _NAMESPACES),
    (302, 261)[column]: _refuse_unless(0, 0),  # prlimit64 of others.
    # TIOCSTI, TIOCLINUX.
    (16, 29)[column]: _refuse_if(1, _EQUAL, 0x5412, 0x541C),
  }
  if hides_children:
    answers[_SIGACTION[column]] = _refuse_if(0, _EQUAL, int(signal.SIGCHLD))
  if shares_user:
    for numbers in _SIGNALS.values():
      answers[numbers[column]] = _refuse_unless(0, os.getpid())
    # fcntl F_SETOWN, F_SETSIG, F_SETOWN_EX.
    answers[(72, 25)[column]] = _refuse_if(1, _EQUAL, 8, 10, 15)
  return answers


def install(code: bytes) -> None:
  """Applies a filter to this process, for ever; it must have no new privileges.

  Raises:
    OSError: The kernel has no seccomp.
  """
  buffer = ctypes.create_string_buffer(code, len(code))
  program = struct.pack('HxxxxxxQ', len(code) // 8, ctypes.addressof(buffer))
  linux.call('prctl', _PRCTL_SET_SECCOMP, _MODE_FILTER, program, 0, 0)


def _machine() -> tuple[int, int]:
  machine = platform.machine()
  if machine not in _MACHINES:
    raise OSError(errno.ENOSYS, f'No system call table for {machine}')
  return _MACHINES[machine]


def _search(answers: dict[int, _Code]) -> _Code:
  """Returns code that finds a call's answer; calls without one are allowed.

  By halving, since every program that is locked in has to wait until the kernel
  has tried the filter on every call, and then for the filter at each call.
  """
  starts = {0: _answer(_ALLOW)}  # Numbers from which on an answer holds.
  for number in sorted(answers):
    starts[number] = answers[number]
    starts[number + 1] = answers.get(number + 1, _answer(_ALLOW))
  ordered = sorted(starts)
  kept = [
    n
    for n, m in zip(ordered, [None, *ordered], strict=False)
    if m is None or starts[n] != starts[m]
  ]

  def halve(numbers: list[int]) -> _Code:
    if len(numbers) == 1:
      return starts[numbers[0]]
    middle = len(numbers) // 2
    below, above = halve(numbers[:middle]), halve(numbers[middle:])
    jump = [(_FROM, 0, 1, numbers[middle]), (_JUMP, 0, 0, len(below))]
    return jump + below + above

  return halve(kept)


def _answer(what: int) -> _Code:
  return [(_RETURN, 0, 0, what)]


def _refuse_if(argument: int, test: int, *values: int) -> _Code:
  checks = [
    line
    for value in values
    for line in ((test, 0, 1, value), (_RETURN, 0, 0, _REFUSE))
  ]
  return [(_LOAD, 0, 0, _ARGUMENT + 8 * argument), *checks, *_answer(_ALLOW)]


def _refuse_unless(argument: int, allowed: int) -> _Code:
  return [
    (_LOAD, 0, 0, _ARGUMENT + 8 * argument),
    (_EQUAL, 1, 0, allowed),
    *_answer(_REFUSE),
    *_answer(_ALLOW),
  ]
