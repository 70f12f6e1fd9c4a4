"""Where programs run: as under Python, within limits, and never in control."""

import os
import pathlib
import subprocess
import sys

import pytest
from workers import worker_pids

from rest import types
from rest.verify import Pool, Request, VerifyConfig
from rest.verify.program.interpreter import SYNTAX_STATUS
from rest.verify.program.judge import ProgramConfig, ProgramJudge
from rest.verify.sandbox import namespaces
from rest.verify.sandbox.sandbox import Sandbox

_SCRIPTS = pathlib.Path(__file__).parents[2] / 'data/programs/scripts.txt'
_STDIN = '1 2\r\n4 5\n'
# As the sandbox has it.
_ENVIRONMENT = {
  'LC_ALL': 'C.UTF-8',
  'PYTHONHASHSEED': '0',
  'PYTHONIOENCODING': 'utf-8:strict',
}
_EMPTY = types.Tests('stdin', inputs=('',), outputs=('yes',))


@pytest.fixture(scope='module')
def judge():
  judge = ProgramJudge(ProgramConfig())
  yield judge
  judge.close()


def _scripts() -> list:
  parts = _SCRIPTS.read_text().split('### ')[1:]
  pairs = [part.split('\n', 1) for part in parts]
  return [pytest.param(source, id=title) for title, source in pairs]


def _output(judge: ProgramJudge, source: str, stdin: str = '') -> str:
  ended, output, reason = judge._run('script', source, stdin, 5)
  assert (ended.status, reason) == (0, '')
  return output.decode()


@pytest.mark.parametrize('source', _scripts())
def test_programs_do_what_they_do_under_python(judge, source, tmp_path):
  (tmp_path / 'program.py').write_text(source)
  done = subprocess.run(
    # Who runs these tests in the background has it ignored.
    ['env', '--default-signal=INT', sys.executable, 'program.py'],
    cwd=tmp_path,
    input=_STDIN.encode(),
    stdout=subprocess.PIPE,
    stderr=subprocess.DEVNULL,
    env=_ENVIRONMENT,
    timeout=60,
  )
  wanted = done.stdout.replace(bytes(tmp_path), namespaces.HOME.encode())
  ended, output, _ = judge._run('script', source, _STDIN, 5)
  # What is no Python is told apart from what fails.
  status = 1 if ended.status == SYNTAX_STATUS else ended.status
  assert (status, output) == (done.returncode, wanted)


def test_input_of_megabytes_is_read_through_a_buffer(judge):
  source = (
    'import sys\n'
    'readline = sys.stdin.buffer.readline\n'
    'print(sum(int(readline()) for _ in range(10 ** 6)), '
    'type(sys.stdin.buffer))'
  )
  lines = ''.join(f'{i % 10**6:06}\n' for i in range(10**6))
  output = _output(judge, source, lines)
  assert output == f"{sum(range(10**6))} <class '_io.BufferedReader'>\n"


def test_as_many_threads_start_as_processes_are_allowed(judge):
  source = """
import threading
gate = threading.Barrier(65)
threads = [threading.Thread(target=gate.wait) for _ in range(64)]
for t in threads: t.start()
gate.wait()
for t in threads: t.join()
print('yes')
"""
  assert judge.judge(source, _EMPTY).reason == 'passed'
  more = source.replace('64', '65').replace('(65)', '(66)')
  assert judge.judge(more, _EMPTY).reason != 'passed'


def test_numpy_is_imported_only_for_programs_that_name_it(judge):
  pytest.importorskip('numpy')
  look = 'import sys\nprint("num" + "py" in sys.modules)'
  assert _output(judge, look) == 'False\n'
  assert _output(judge, f'import numpy\n{look}') == 'True\n'
  assert _output(judge, look) == 'False\n'


_CHANCE = """
import os, random, secrets, subprocess, sys, uuid
import numpy
print([random.random(), random.Random().random(), random.Random().random()])
random.seed()
print(random.random(), random.SystemRandom().random(), secrets.token_hex(8))
print(os.urandom(8), os.getrandom(8), uuid.uuid4(), hash('a'))
print(numpy.random.rand(2), numpy.random.default_rng().random())
sys.stdout.flush()
for _ in range(2):
  if os.fork() == 0:
    print(random.random(), flush=True)
    os._exit(0)
  os.wait()
command = [sys.executable, '-c', 'print(hash("a"))']
print(subprocess.run(command, capture_output=True).stdout)
"""


def test_programs_draw_the_same_numbers_in_every_sandbox(judge):
  pytest.importorskip('numpy')
  other = ProgramJudge(ProgramConfig())
  outputs = [_output(x, _CHANCE) for x in (judge, judge, other)]
  assert outputs[0] == outputs[1] == outputs[2]
  other.close()


def test_guards_are_outside_the_groups_of_programs(judge):
  sandbox = judge._sandboxes['program']
  if not sandbox._groups:
    pytest.skip('This host lets us make no control groups.')
  name = os.path.basename(sandbox._groups[0])
  assert judge.judge('print("yes")', _EMPTY).reward == 1
  for pid in (sandbox._process.pid, *_children(sandbox._process.pid)):
    assert name not in pathlib.Path(f'/proc/{pid}/cgroup').read_text()
  seen = _output(judge, 'print(open("/proc/self/cgroup").read())')
  assert name in seen


def _children(pid: int) -> list[int]:
  files = pathlib.Path(f'/proc/{pid}/task').glob('*/children')
  return [int(child) for file in files for child in file.read_text().split()]


def _break(judge: ProgramJudge, source: str, times: int) -> types.Verdict:
  """Judges a program; the first fork servers with a job are killed."""
  killed: list[object] = []
  start = Sandbox.start

  def start_and_kill(sandbox: Sandbox, *job) -> None:
    start(sandbox, *job)
    if len(killed) < times:
      killed.append(sandbox)
      sandbox._process.kill()

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(Sandbox, 'start', start_and_kill)
    return judge.judge(source, _EMPTY)


def test_a_program_that_breaks_what_holds_for_others_has_failed():
  judge = ProgramJudge(ProgramConfig())
  source = 'import time\ntime.sleep(1)\nprint("yes")'
  assert _break(judge, source, 1).reward == 1
  verdict = _break(judge, source, 2)
  assert (verdict.reward, verdict.reason) == (0.0, 'broken')
  verdict = _break(judge, source, 3)
  assert (verdict.reward, verdict.reason) == (None, 'sandbox')
  assert judge.judge(source, _EMPTY).reward == 1
  judge.close()


_FLOODS = {
  'words': ('stdin', 'import os\nwhile True: os.write(1, b"1 " * 50000)'),
  'lines': ('stdin', 'import os\nwhile True: os.write(1, b"\\n" * 50000)'),
  'word': ('stdin', 'import os\nwhile True: os.write(1, b"1" * 50000)'),
  'lists': (
    'call',
    'import os\n'
    'def f():\n'
    '  data = b"[" + b",".join([b"[]"] * 2700000) + b"]"\n'
    '  for fd in range(3, 10):\n'
    '    try: os.write(fd, data)\n'
    '    except OSError: pass\n'
    '  os._exit(0)',
  ),
}


@pytest.mark.parametrize('name', _FLOODS)
def test_the_worker_holds_little_whatever_programs_write(name):
  kind, source = _FLOODS[name]
  tests = types.Tests('stdin', inputs=('',), outputs=('1',))
  if kind == 'call':
    tests = types.Tests('call', entry_point='f', inputs=('[]',), outputs=('1',))
  config = VerifyConfig(workers=1)
  with Pool(config, ('program',)) as pool:
    verdict = pool.submit(Request('program', source, tests=tests)).result()
    assert verdict.reward == 0
    (pid,) = worker_pids(pool)
    status = pathlib.Path(f'/proc/{pid}/status').read_text()
    assert pool.stats.killed == 0
  fields = dict(line.split(':', 1) for line in status.splitlines())
  assert int(fields['VmPeak'].split()[0]) <= config.memory << 10


def test_the_stack_may_grow_and_nothing_else(judge):
  source = """
import resource
resource.setrlimit(resource.RLIMIT_STACK, (1 << 29, resource.RLIM_INFINITY))
for name in ('AS', 'CPU', 'NPROC', 'FSIZE', 'CORE', 'NOFILE'):
  kind = getattr(resource, f'RLIMIT_{name}')
  try: resource.setrlimit(kind, (resource.RLIM_INFINITY,) * 2)
  except ValueError: continue
  print(name)
print('yes')
"""
  assert judge.judge(source, _EMPTY).reason == 'passed'
