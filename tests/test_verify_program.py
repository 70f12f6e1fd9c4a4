"""The program verifier: right verdicts, and nothing gets out of the sandbox."""

import concurrent.futures
import contextlib
import os
import pathlib
import queue
from collections.abc import Iterator

import pytest

from rest import types
from rest.verify import sandbox
from rest.verify.program import ProgramConfig, ProgramJudge

_PROGRAMS = pathlib.Path(__file__).parent / 'data' / 'programs'
_SMALL = ProgramConfig(
  cpu_seconds=1,
  script_cpu_seconds=1,
  total_cpu_seconds=3,
  memory_mib=256,
  processes=16,
  file_mib=1,
)
_TESTS = {
  'assert': types.Tests(
    'assert',
    'import math\n'
    'def check(candidate):\n'
    '  assert candidate(1, 2) == 3\n'
    '  assert abs(candidate(4, 5) - 9) < 1e-6\n'
    '  assert math.isclose(candidate(7, 8), 15)\n'
    '  assert candidate(20, 1) in [21]\n',
    'add',
  ),
  'stdin': types.Tests('stdin', inputs=('1 2\n', '4 5'), outputs=('3\n', '9')),
  'call': types.Tests(
    'call', entry_point='add', inputs=('[1, 2]', '[4, 5]'), outputs=('3', '9')
  ),
}
_LANES = 4  # Sandboxes that the many programs share: sleepers overlap.


def _read(name: str) -> Iterator[tuple[str, str, str, list[str]]]:
  """Yields name, program, kind and possible reasons of every program."""
  text = (_PROGRAMS / name).read_text()
  for part in text.split('### ')[1:]:
    head, _, source = part.partition('\n')
    title, kinds, *reasons = [x.strip() for x in head.split('|')]
    for kind in kinds.split():
      yield title, source, kind, reasons[0].split() if reasons else ['passed']


@pytest.fixture(scope='module')
def lanes() -> Iterator[queue.Queue]:
  judges = [ProgramJudge(_SMALL) for _ in range(_LANES)]
  free: queue.Queue = queue.Queue()
  for judge in judges:
    free.put(judge)
  yield free
  for judge in judges:
    judge.close()


@pytest.fixture(scope='module')
def judge(lanes) -> Iterator[ProgramJudge]:
  own = lanes.get()
  yield own
  lanes.put(own)


def _survivors() -> list[str]:
  """Returns the processes of the users that our programs have run as."""
  first = sandbox.FIRST_USER + os.getpid() * sandbox.USERS
  found = []
  for path in pathlib.Path('/proc').glob('[0-9]*'):
    with contextlib.suppress(FileNotFoundError):
      if first <= path.stat().st_uid < first + sandbox.USERS:
        found.append(path.name)
  return found


def _judge_all(name: str, lanes: queue.Queue) -> list[str]:
  """Judges all programs of a file; returns what went wrong."""

  def one(case: tuple[str, str, str, list[str]]) -> str:
    title, source, kind, reasons = case
    judge = lanes.get()
    try:
      verdict = judge.judge(source, _TESTS[kind])
    finally:
      lanes.put(judge)
    right = verdict.reward == float(reasons == ['passed'])
    if right and verdict.reason in reasons:
      return ''
    return f'{title} ({kind}): {verdict.reward} {verdict.reason}'

  with concurrent.futures.ThreadPoolExecutor(_LANES) as threads:
    return [x for x in threads.map(one, _read(name)) if x]


def test_hostile_programs_never_pass_and_leave_nothing(lanes):
  assert _judge_all('hostile.txt', lanes) == []
  for place in ('/tmp', '/var/tmp', '/', '/etc', os.path.expanduser('~')):
    assert not os.path.exists(os.path.join(place, 'rest_was_here'))
  if os.getuid() == 0:
    assert _survivors() == []


def test_honest_programs_pass(lanes):
  assert _judge_all('honest.txt', lanes) == []
