"""Judges programs by assertions, by what they print, and by what they return.

  run('add = lambda a, b: a + b', Tests('assert', 'assert add(1, 2) == 3'))

Each verifier owns a sandbox: a fork server in namespaces of its own (or behind
Landlock), where a program has no network, no files but the interpreter's, an
empty folder, an empty environment, a system call filter and limits on CPU time,
memory, processes and output. When it ends, or at its deadline, every process
that it has started is killed, and what it has written is forgotten.

Expected outputs and tests never enter that sandbox. What a program prints or
returns is compared here, and so is what it answers to assertions that are calls
with values (`reader`, `cases`); others run in a second sandbox, which asks the
program over data-only messages (`tester`). A verdict of 1.0 needs this side to
have seen every expected value; exit statuses and output never count as such.

How records of the published sets become `Tests`:

  HumanEval    Tests('assert', record['test'], record['entry_point']), the
               test after the helpers that the prompt defines; the program is
               the prompt and the completion.
  MBPP         Tests('assert', '\n'.join([setup_code, *test_list]))
  APPS         Tests('stdin', inputs=..., outputs=...), one text a case; or
               Tests('call', entry_point=fn_name, inputs=..., outputs=...), each
               the JSON of a list of arguments, and of the result.

docs/verification.md says what a program can try, what stops it, and what is not
stopped.
"""

import atexit
import json
import os
import select
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rest.types import Tests, Verdict
from rest.verify import compare, probe, reader
from rest.verify.candidate import MEMORY_STATUS
from rest.verify.cases import Case
from rest.verify.jail import Limits
from rest.verify.malformed import check, is_text
from rest.verify.sandbox import Ended, MemoryFiles, Sandbox, SandboxError
from rest.verify.wire import Values, dump

VERSION = 'program-3'  # 2 took whatever a program called by a name.
_MAX_LOAD = 8.0  # Times the wall time, at most, for waiting for a core.
_IDLE_SECONDS = 2.0  # Wall time for a case besides computing.
_LOOK_SECONDS = 0.05  # Between two looks at a job's CPU time, at least.
_LONG_SCRIPT = 2000  # Characters; few tests of HumanEval and MBPP are longer.
_TESTS_MEMORY = 3  # Times the program's: they may hold both sides' values.


@dataclass(frozen=True, slots=True)
class ProgramConfig:
  """What a program may use. CPU time is that of all its processes together.

  Attributes:
    cpu_seconds: CPU time for one case of 'stdin' and 'call'.
    script_cpu_seconds: CPU time for a script of assertions, and as much again
      for every 2,000 characters of it.
    total_cpu_seconds: CPU time for all cases together, and the most that any
      script gets.
    memory_mib: Memory of the program.
    processes: Processes and threads at a time.
    file_mib: Size of any file that it writes, and of its output.
    allow_weak_sandbox: Whether resource limits will do where the host allows no
      real isolation.
  """

  cpu_seconds: float = 5.0
  script_cpu_seconds: float = 15.0
  total_cpu_seconds: float = 60.0
  memory_mib: int = 1024
  processes: int = 64
  file_mib: int = 8
  allow_weak_sandbox: bool = False

  def __post_init__(self):
    for name in self.__slots__:
      value = getattr(self, name)
      if name != 'allow_weak_sandbox' and not value > 0:
        raise ValueError(f'{name} must be positive, got {value}.')


class ProgramJudge:
  """Judges one program at a time, in a sandbox of its own.

  Attributes:
    level: What isolates the programs: one of `jail.LEVELS`.
  """

  level: str

  def __init__(self, config: ProgramConfig):
    """Finds the strongest sandbox that the host allows, and starts it.

    Raises:
      SandboxError: No sandbox holds.
    """
    self._config = config
    self._memory = config.memory_mib << 20
    self.level, program = probe.strongest(
      self._memory, config.processes, config.allow_weak_sandbox
    )
    self._sandboxes = {'program': program}

  def judge(self, program: str, tests: Tests) -> Verdict:
    """Returns the verdict on a program: 1.0, 0.0, or None for our own failure.

    Reasons: passed; wrong (a result is not what was expected), error (it ended
    by an exception, or has no such function), timeout, memory, output (too
    much of it); untested (the tests ask the program nothing, or need its own
    process) or sandbox (it failed twice), both with reward None.

    Raises:
      ValueError: The tests are malformed.
    """
    check(tests)
    if not is_text(program):
      return _verdict('error')
    judge = self._judge_script if tests.kind == 'assert' else self._judge_cases
    for _ in range(2):
      try:
        return _verdict(judge(program, tests))
      except SandboxError:
        self.close()
      except BaseException:
        self.close()  # A job may be half done.
        raise
    return _verdict('sandbox')

  def deadline(self, tests: Tests) -> float:
    """Returns the seconds after which a verdict is overdue on any host."""
    config = self._config
    if tests.kind == 'assert':
      return 60 + _wall(self._script_cpu(tests), _MAX_LOAD)
    cases = len(tests.inputs)
    cpu = min(config.cpu_seconds * cases, config.total_cpu_seconds)
    return 60 + _wall(cpu, _MAX_LOAD) + cases * _IDLE_SECONDS * _MAX_LOAD

  def close(self) -> None:
    """Ends the sandboxes; a later judgement starts new ones."""
    while self._sandboxes:
      _, sandbox = self._sandboxes.popitem()
      sandbox.close()

  def _sandbox(self, role: str) -> Sandbox:
    if role not in self._sandboxes:
      memory = self._memory * (_TESTS_MEMORY if role == 'tests' else 1)
      self._sandboxes[role] = Sandbox(
        self.level, role, memory, self._config.processes
      )
    return self._sandboxes[role]

  def _script_cpu(self, tests: Tests) -> float:
    """Returns the CPU time for a script: long ones test much."""
    times = 1 + len(tests.script) // _LONG_SCRIPT
    return min(
      self._config.script_cpu_seconds * times, self._config.total_cpu_seconds
    )

  def _limits(self, cpu: float, memory: int = 1) -> Limits:
    return Limits(
      cpu=cpu,
      memory=self._memory * memory,
      processes=self._config.processes,
      file=self._config.file_mib << 20,
    )

  def _judge_cases(self, program: str, tests: Tests) -> str:
    judge = self._judge_input if tests.kind == 'stdin' else self._judge_call
    left = self._config.total_cpu_seconds
    for given, expected in zip(tests.inputs, tests.outputs, strict=True):
      cpu = min(self._config.cpu_seconds, left)
      reason, used = judge(program, tests, given, expected, cpu)
      if reason != 'passed':
        return reason
      left -= used
      if left <= 0:
        return 'timeout'
    return 'passed'

  def _judge_input(
    self, program: str, tests: Tests, given: str, expected: str, cpu: float
  ) -> tuple[str, float]:
    """Runs a program on one input; returns the reason and its CPU time."""
    ended, output, reason = self._run('script', program, given, cpu)
    if not reason:
      reason = _reason(compare.prints(output, expected))
    return reason, ended.cpu

  def _judge_call(
    self, program: str, tests: Tests, given: str, expected: str, cpu: float
  ) -> tuple[str, float]:
    """Calls a program's function once; returns the reason and its CPU time."""
    arguments = compare.restored(compare.parse(given))
    asked = [Case(tests.entry_point, arguments)]
    results, reason, used = self._call(program, asked, cpu)
    if not reason:
      reason = _reason(compare.returns(results[0], expected))
    return reason, used

  def _judge_values(
    self, program: str, asked: Sequence[Case], cpu: float
  ) -> str:
    """Makes all calls of a script in one process, and compares the results."""
    results, reason, _ = self._call(program, asked, cpu)
    return reason or _reason(
      all(
        case.holds(result) for case, result in zip(asked, results, strict=True)
      )
    )

  def _call(
    self, program: str, asked: Sequence[Case], cpu: float
  ) -> tuple[list[Any], str, float]:
    """Returns encoded results, why there are none if so, and the CPU time."""
    encode = Values().encode
    calls = [
      [x.function, encode(x.arguments), encode(x.named), encode(x.views)]
      for x in asked
    ]
    ended, output, reason = self._run('call', program, dump(calls), cpu)
    try:
      results = [] if reason else [*map(json.loads, output.splitlines())]
    except (ValueError, RecursionError):
      results = []
    if len(results) != len(asked):
      reason = reason or 'error'
    return results, reason, ended.cpu

  def _run(
    self, role: str, program: str, given: str, cpu: float
  ) -> tuple[Ended, bytes, str]:
    """Runs a program once; returns what it wrote, and why it failed if so."""
    sandbox = self._sandbox('program')
    limits = self._limits(cpu)
    with MemoryFiles() as files:
      written = files.add('')
      descriptors = [files.add(program), files.add(given), written]
      sandbox.start(role, limits, descriptors, _uses_numpy(program))
      if late := _wait([sandbox], cpu):
        sandbox.stop()
      ended = sandbox.finish()
      output = os.pread(written, limits.file, 0)
    if len(output) == limits.file:
      return ended, output, 'output'
    if late:
      return ended, output, 'timeout'
    reason = _exhausted(ended, limits) or (ended.status != 0 and 'error') or ''
    return ended, output, reason

  def _judge_script(self, program: str, tests: Tests) -> str:
    """Judges by assertions: as values where they are no more than that."""
    cpu = self._script_cpu(tests)
    if asked := reader.read(tests.script, tests.entry_point):
      return self._judge_values(program, asked, cpu)
    return self._judge_linked(program, tests, cpu)

  def _judge_linked(self, program: str, tests: Tests, cpu: float) -> str:
    """Runs assertions in one sandbox against a program in the other."""
    candidate, tester = self._sandbox('program'), self._sandbox('tests')
    limits = self._limits(cpu)
    roomy = self._limits(cpu, _TESTS_MEMORY)
    first, second = socket.socketpair()
    script = {'script': tests.script, 'entry_point': tests.entry_point}
    with MemoryFiles() as files, first, second:
      result = files.add('')
      numpy = _uses_numpy(program)
      descriptors = [files.add(program), first.fileno()]
      candidate.start('serve', limits, descriptors, numpy)
      descriptors = [files.add(json.dumps(script)), second.fileno(), result]
      numpy = _uses_numpy(tests.script)
      tester.start('test', roomy, descriptors, numpy)
      first.close()
      second.close()
      # A program that dies ends its tests too.
      late = _wait([tester, candidate], cpu)
      tester.stop()
      candidate.stop()
      tested, ended = tester.finish(), candidate.finish()
      outcome = os.pread(result, 64, 0).decode()
    if outcome and outcome != 'error':
      return outcome
    if late:
      return 'timeout'
    if not outcome:
      raise SandboxError('The tests did not start.')
    # Limits explain an error of the tests, where one was met.
    return _exhausted(ended, limits) or _exhausted(tested, roomy) or outcome


_judges: dict[ProgramConfig, ProgramJudge] = {}
_judging = threading.Lock()


def run(
  program: str, tests: Tests, config: ProgramConfig = ProgramConfig()
) -> Verdict:
  """Returns the verdict on one program; see `ProgramJudge.judge`.

  The sandbox starts with the first call and is kept for later ones.
  """
  with _judging:
    if config not in _judges:
      _judges[config] = ProgramJudge(config)
      atexit.register(_judges[config].close)
    return _judges[config].judge(program, tests)


def _wait(sandboxes: list[Sandbox], cpu: float) -> bool:
  """Waits for the job in the first sandbox; returns whether it is overdue.

  Its CPU time is looked at when it may be over. Waiting for a core does not
  count, so that a busy host changes no verdict; sleeping and waiting for
  anything else does.

  Args:
    sandboxes: Where the jobs run that depend on each other.
    cpu: Seconds of CPU time that each may take.
  """
  poll = select.poll()
  poll.register(sandboxes[0], select.POLLIN)
  start = time.monotonic()
  end = start + _wall(cpu, 1.0)
  used = 0.0
  while (left := end - time.monotonic()) > 0:
    if poll.poll(min(left, max(cpu - used, _LOOK_SECONDS)) * 1000):
      return False
    shares = [sandbox.share() for sandbox in sandboxes]
    if shares[0] is None:
      return False
    running = [share for share in shares if share]
    used = max(share.used for share in running)
    if used > cpu:
      return True
    waited = sum(share.waited for share in running)
    end = start + min(_wall(cpu, 1.0) + waited, _wall(cpu, _MAX_LOAD))
  return True


def _wall(cpu: float, load: float) -> float:
  return (1.5 * cpu + _IDLE_SECONDS) * load


def _exhausted(ended: Ended, limits: Limits) -> str:
  """Returns which limit ended a job, or ''."""
  if ended.out_of_memory or ended.status == MEMORY_STATUS:
    return 'memory'
  return 'timeout' if ended.cpu > limits.cpu else ''


def _reason(right: bool) -> str:
  return 'passed' if right else 'wrong'


def _verdict(reason: str) -> Verdict:
  if reason in ('untested', 'sandbox'):
    return Verdict(None, reason, VERSION)
  return Verdict(float(reason == 'passed'), reason, VERSION)


def _uses_numpy(program: str) -> bool:
  return 'numpy' in program
