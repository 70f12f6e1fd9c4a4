"""What a sandbox is worth, found by attacking it from inside.

The level that a verifier reports rests on these attacks having failed, never on
some mechanism being there. Attacks that are not listed may succeed.
"""

import contextlib
import json
import os
import tempfile
from collections.abc import Callable

from rest.verify.sandbox.jail import SLACK, Limits
from rest.verify.sandbox.sandbox import (
  Sandbox,
  SandboxError,
  levels,
  memory_file,
  sweep,
)

_REFUSAL = (
  'No sandbox for programs holds on this host. {}. Run as root with '
  'CAP_SYS_ADMIN (docker run --privileged), or allow user namespaces (sysctl '
  'kernel.apparmor_restrict_unprivileged_userns=0), or use Linux 5.13 with '
  'Landlock and an interpreter that other users may read; or set '
  'allow_weak_sandbox=True to run programs with hardly any protection.'
)
_LIMITS = Limits(cpu=10, memory=256 << 20, processes=8, file=1 << 20)
# Runs inside; prints the attacks that succeeded.
_ATTACKS = """
import ctypes, json, os, socket, sys
import colorsys  # Not imported yet: programs must be able to.
secret, folder, verifier, processes = json.load(sys.stdin)
def read_files():
  open(secret).read()
def write_files():
  open(folder + '/written', 'w').close()
def read_memory():
  open(f'/proc/{verifier}/environ', 'rb').read()
def send_signals():
  os.kill(verifier, 0)
def use_tcp():
  socket.socket()
def use_unix_sockets():
  socket.socket(socket.AF_UNIX)
def use_vsock():
  socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
def use_netlink():
  socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)
def make_namespaces():
  if ctypes.CDLL(None).unshare(0x10000000):
    raise OSError
def write_large_files():
  with open('large', 'wb') as file:
    file.truncate(2 << 20)
def hold_much_memory():
  bytearray(1 << 30)
def fork_without_limit():
  ends, children = os.pipe(), []
  try:
    for _ in range(processes):
      if not (pid := os.fork()):
        os.close(ends[1])
        os.read(ends[0], 1)
        os._exit(0)
      children.append(pid)
  finally:
    os.close(ends[1])
    for pid in children:
      os.waitpid(pid, 0)
succeeded = []
for attack in [
  read_files, write_files, read_memory, send_signals, use_tcp,
  use_unix_sockets, use_vsock, use_netlink, make_namespaces,
  write_large_files, hold_much_memory, fork_without_limit,
]:
  try:
    attack()
  except (OSError, MemoryError):
    continue
  succeeded.append(attack.__name__)
print(json.dumps(succeeded))
"""


def strongest(
  make: Callable[[str], Sandbox], allow_weak: bool
) -> tuple[str, Sandbox]:
  """Returns the strongest level that holds on this host, and a sandbox of it.

  Args:
    make: Starts a sandbox of a level, in which the job 'script' runs a program
      of Python.
    allow_weak: Whether resource limits alone will do.

  Raises:
    SandboxError: No level holds; says why not, and what would help.
  """
  sweep()
  reasons = []
  for level in levels():
    weak = level == 'rlimits'
    if weak and not allow_weak:
      break
    try:
      sandbox = make(level)
    except SandboxError as error:
      reasons.append(f'{level}: {error}')
      continue
    try:
      succeeded = attack(sandbox)
    except SandboxError as error:
      succeeded = [str(error)]
    if weak or not succeeded:
      return level, sandbox
    reasons.append(f'{level}: a program could {", ".join(succeeded)}')
    sandbox.close()
  raise SandboxError(_REFUSAL.format('; '.join(reasons)))


def attack(sandbox: Sandbox) -> list[str]:
  """Returns the names of the attacks that the sandbox did not stop."""
  with tempfile.TemporaryDirectory() as folder:
    os.chmod(folder, 0o777)
    secret = os.path.join(folder, 'secret')
    with open(secret, 'w') as file:
      file.write('the expected output')
    os.chmod(secret, 0o666)
    forks = _LIMITS.processes + 1
    if sandbox.level == 'landlock':
      forks += 2 * SLACK  # Other processes of our user count too.
    facts = [secret, folder, os.getpid(), forks]
    with contextlib.ExitStack() as files:
      texts = (_ATTACKS, json.dumps(facts), '')
      given = [memory_file(text, files) for text in texts]
      sandbox.start('script', _LIMITS, given)
      ended = sandbox.finish()
      output = os.pread(given[-1], 1 << 16, 0)
    if os.path.exists(os.path.join(folder, 'written')):
      return ['write_files']
  if ended.status != 0:
    raise SandboxError(f'the probe ended with status {ended.status}')
  return json.loads(output)
