"""What runs in a worker interpreter: python -m rest.verify.worker SETUP.

Reads one JSON request a line, writes one JSON reply a line. It imports no JAX,
holds itself to its share of memory and CPU, and ends with its parent: by the
kernel's signal, and by the end of its input.
"""

import contextlib
import functools
import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, BinaryIO

from rest.types import Problem, Tests, Verdict
from rest.verify import exact, math, reward, user_file
from rest.verify.sandbox import linux

if TYPE_CHECKING:
  from rest.verify.program.judge import ProgramJudge

_Judge = Callable[[dict], Verdict]


def main() -> None:
  """Serves requests until the input ends."""
  setup = json.loads(sys.argv[1])
  replies = _private_output()
  _confine(setup)
  with contextlib.ExitStack() as on_exit:
    judges, sandbox = _load(setup, replies, on_exit)
    _write(replies, {'ready': os.getpid(), 'sandbox': sandbox})
    for line in sys.stdin.buffer:
      request = json.loads(line)
      # An error ends this worker; the pool asks another, once.
      verdict = judges[request['verifier']](request)
      _write(replies, asdict(verdict))


def _private_output() -> BinaryIO:
  """Moves the reply pipe away from descriptor 1, where libraries print."""
  # Never closed: its end is that of the process, whose status is known then.
  replies = os.fdopen(os.dup(1), 'wb', closefd=False)
  nothing = os.open(os.devnull, os.O_WRONLY)
  os.dup2(nothing, 1)
  os.close(nothing)
  return replies


def _confine(setup: dict) -> None:
  linux.die_with_parent(signal.SIGKILL)
  if os.getppid() != setup['parent']:
    sys.exit(0)  # It died before the signal was asked for.
  os.nice(setup['nice'])
  resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _load(
  setup: dict, replies: BinaryIO, on_exit: contextlib.ExitStack
) -> tuple[dict[str, _Judge], str]:
  """Returns a judge for each verifier, and the level of the sandbox if any."""
  judges: dict[str, _Judge] = {
    'hang': _hang,
    'math': lambda r: math.judge(r['gold'], r['text']),
    'exact': lambda r: exact.judge(r['gold'], r['text']),
  }
  sandbox = ''
  if 'program' in setup['verifiers']:
    from rest.verify.program import judge as program  # Enters the sandbox.

    judge = program.ProgramJudge(
      program.ProgramConfig(allow_weak_sandbox=setup['allow_weak_sandbox'])
    )
    on_exit.callback(judge.close)
    judges['program'] = lambda r: _judge_program(judge, r, replies)
    sandbox = judge.level
  for name in filter(user_file.is_named, setup['verifiers']):
    judge_reward = functools.partial(reward.judge, reward.load(name), name)
    judges[name] = functools.partial(_judge_reward, judge_reward)
  memory = setup['memory'] << 20
  return {name: _within(memory, judges[name]) for name in judges}, sandbox


def _within(memory: int, judge: _Judge) -> _Judge:
  """Returns a judge that may hold so many bytes.

  A sandbox for programs, where that starts one, has limits of its own.
  """
  _, hard = resource.getrlimit(resource.RLIMIT_AS)

  def judge_within(request: dict) -> Verdict:
    resource.setrlimit(resource.RLIMIT_AS, (memory, hard))
    verdict = judge(request)
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
    return verdict

  return judge_within


def _judge_program(
  judge: 'ProgramJudge', request: dict, replies: BinaryIO
) -> Verdict:
  tests = _read_tests(request['tests'])
  _write(replies, {'seconds': judge.deadline(tests)})
  return judge.judge(request['text'], tests)


def _judge_reward(
  judge: Callable[[Problem, str], Verdict], request: dict
) -> Verdict:
  fields = request['problem']
  if fields['tests'] is not None:
    fields['tests'] = _read_tests(fields['tests'])
  return judge(Problem(**fields), request['text'])


def _read_tests(fields: dict) -> Tests:
  """Returns the tests that a JSON object describes."""
  for name in ('inputs', 'outputs'):
    fields[name] = tuple(fields[name])
  return Tests(**fields)


def _hang(request: dict) -> Verdict:
  """Never answers: for the pool's self-test, and for its tests."""
  while True:
    pass


def _write(replies: BinaryIO, message: dict) -> None:
  replies.write(json.dumps(message).encode() + b'\n')
  replies.flush()


if __name__ == '__main__':
  main()
