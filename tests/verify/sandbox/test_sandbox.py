"""What locks a program in, and that nothing of it stays behind."""

import contextlib
import os
import pathlib
import platform
import signal
import struct
import subprocess
import sys
import time

import pytest

from rest.verify.sandbox import seccomp

_WORKER = """
import sys
from rest.types import Tests
from rest.verify.program.judge import ProgramConfig, ProgramJudge
judge = ProgramJudge(ProgramConfig())
judge.judge('x = 1', Tests('assert', 'assert x == 1'))
print('ready', flush=True)
judge.judge('import os, time\\nos.fork()\\nos.fork()\\n'
            'time.sleep(1000)', Tests('assert', 'assert x == 1'))
"""


def test_nothing_survives_a_killed_verifier():
  root = pathlib.Path(__file__).parents[3]
  worker = subprocess.Popen(
    [sys.executable, '-c', _WORKER],
    stdout=subprocess.PIPE,
    env=os.environ | {'PYTHONPATH': str(root)},
  )
  assert worker.stdout
  assert worker.stdout.readline() == b'ready\n'
  time.sleep(0.3)
  session = _descendants(worker.pid)
  assert len(session) >= 4  # Two fork servers, each with its launcher.
  worker.kill()
  worker.wait()
  worker.stdout.close()
  deadline = time.monotonic() + 60
  while any(os.path.exists(f'/proc/{pid}') for pid in session):
    assert time.monotonic() < deadline, session
    time.sleep(0.01)


def _descendants(pid: int) -> set[int]:
  found: set[int] = set()
  for path in pathlib.Path(f'/proc/{pid}/task').glob('*/children'):
    with contextlib.suppress(OSError):
      for child in map(int, path.read_text().split()):
        found |= {child} | _descendants(child)
  return found


_BLOCKED = """
import errno, struct, sys
from rest.types import Tests
from rest.verify.sandbox import linux, seccomp
from rest.verify.program.judge import ProgramConfig, ProgramJudge
from rest.verify.sandbox.sandbox import SandboxError
# No namespaces, as in a container with the usual profile.
code = [(0x20, 0, 0, 0)]
blocked = {'unshare', 'mount', 'pivot_root'}
column = seccomp._machine()[0]
numbers = [seccomp._DENIED[name][column] for name in blocked]
if 'landlock' in sys.argv:
  numbers.append(444)
for number in numbers:
  code += [(0x15, 0, 1, number), (6, 0, 0, 0x50000 | errno.EPERM)]
code.append((6, 0, 0, 0x7fff0000))
linux.forgo_privileges()
seccomp.install(b''.join(struct.pack('=HBBI', *line) for line in code))
try:
  judge = ProgramJudge(ProgramConfig(
    cpu_seconds=1, allow_weak_sandbox='weak' in sys.argv))
except SandboxError as error:
  print('refused', error)
  sys.exit()
print(judge.level)
empty = Tests('stdin', inputs=('',), outputs=('yes',))
attacks = [
  "open('/etc/passwd').read()",
  f"open({sys.argv[1]!r}, 'w').close()",
  "import socket; socket.socket()",
  "import os; os.kill(os.getppid(), 9)",
  "import os; os.chmod('/tmp', 0o777)",
]
for attack in attacks:
  print(judge.judge(attack + '\\nprint("yes")', empty).reason)
print(judge.judge('print("yes")', empty).reason)
judge.close()
"""


def _run_blocked(*arguments: str) -> list[str]:
  root = pathlib.Path(__file__).parents[3]
  output = subprocess.run(
    [sys.executable, '-c', _BLOCKED, *arguments],
    stdout=subprocess.PIPE,
    env=os.environ | {'PYTHONPATH': str(root)},
    check=True,
  ).stdout
  return output.decode().splitlines()


def test_without_namespaces_landlock_holds_or_the_host_is_refused(tmp_path):
  tmp_path.chmod(0o777)
  level, *reasons = _run_blocked(f'{tmp_path}/written')
  if level.startswith('refused'):
    assert 'allow_weak_sandbox' in level
    return
  assert level.startswith('landlock')
  assert reasons == ['error'] * 5 + ['passed']
  assert not (tmp_path / 'written').exists()


def test_limits_alone_are_refused_unless_asked_for(tmp_path):
  written = f'{tmp_path}/written'
  (refusal,) = _run_blocked(written, 'landlock')
  assert refusal.startswith('refused No sandbox for programs holds')
  assert 'unshare' in refusal and 'Landlock' in refusal
  level, *_ = _run_blocked(written, 'landlock', 'weak')
  assert level == 'rlimits'


def _answer(code: bytes, number: int, architecture: int, argument: int) -> int:
  """Returns what a filter does about a call whose arguments are the same."""
  lines = list(struct.iter_unpack('=HBBI', code))
  data = struct.pack('=IIQ6Q', number, architecture, 0, *[argument] * 6)
  value = place = 0
  while True:
    operation, yes, no, constant = lines[place]
    place += 1
    match operation:
      case 0x20:
        (value,) = struct.unpack_from('=I', data, constant)
      case 0x06:
        return constant
      case 0x05:
        place += constant
      case 0x15:
        place += yes if value == constant else no
      case 0x35:
        place += yes if value >= constant else no
      case 0x45:
        place += yes if value & constant else no


@pytest.mark.parametrize('machine', ['x86_64', 'aarch64'])
@pytest.mark.parametrize('shares', [False, True])
def test_the_filter_refuses_what_is_listed_and_nothing_else(
  machine, shares, monkeypatch
):
  allow, refuse, missing = 0x7FFF0000, 0x50001, 0x50026
  column, architecture = seccomp._MACHINES[machine]
  monkeypatch.setattr(platform, 'machine', lambda: machine)
  code = seccomp.build(shares, shares, shares)
  refused = {
    number
    for number in range(500)
    if _answer(code, number, architecture, 99) == refuse
  }
  listed = dict(seccomp._DENIED)
  unless = {(302, 261)[column]}  # prlimit64 of another process.
  if shares:
    listed |= seccomp._DENIED_ON_SHARED_FILES | seccomp._OTHER_SIGNALS
    unless |= {numbers[column] for numbers in seccomp._SIGNALS.values()}
  assert refused == {x[column] for x in listed.values()} - {None} | unless
  clone, ioctl, action = (56, 220)[column], (16, 29)[column], (13, 134)[column]
  assert _answer(code, 435, architecture, 0) == missing
  assert _answer(code, clone, architecture, 0x10000000) == refuse
  assert _answer(code, ioctl, architecture, 0x5412) == refuse
  assert _answer(code, ioctl, architecture, 0x541C) == refuse
  assert _answer(code, ioctl, architecture, 0x5401) == allow
  ignored = _answer(code, action, architecture, signal.SIGCHLD)
  assert ignored == (refuse if shares else allow)
  own = _answer(code, (62, 129)[column], architecture, os.getpid())
  assert own == allow
  assert _answer(code, clone, architecture + 1, 0) == 0x80000000
