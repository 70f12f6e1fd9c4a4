"""Judges programs by assertions, by what they print, and by what they return.

Each verifier owns a sandbox: a fork server in namespaces of its own (or behind
Landlock), where a program has no network, no files but the interpreter's, an
empty folder, an empty environment, a system call filter and limits on CPU time,
memory, processes and output. When it ends, or at its deadline, every process
that it has started is killed, and what it has written is forgotten. What guards
it stands outside of these limits, and who breaks it fails: a verdict is unknown
only where a harmless program gets none either. `chance` says what is pinned.

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
               the JSON of a list of arguments, and of the result; with the
               names that programs may use unimported in `preamble`.

docs/verification.md says what a program can try, what stops it, and what is not
stopped.
"""

import contextlib
import json
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rest.types import Tests, Verdict
from rest.verify.program import compare, reader
from rest.verify.program.cases import Case
from rest.verify.program.interpreter import MEMORY_STATUS, SYNTAX_STATUS
from rest.verify.program.malformed import check, is_text
from rest.verify.program.waiting import (
  IDLE_SECONDS,
  MAX_LOAD,
  overdue,
  wall_seconds,
)
from rest.verify.program.wire import Values, dump
from rest.verify.sandbox import probe
from rest.verify.sandbox.jail import Limits
from rest.verify.sandbox.sandbox import (
  END_SECONDS,
  START_SECONDS,
  Ended,
  Sandbox,
  SandboxError,
  memory_file,
)

VERSION = 'program-4'  # 3 gave every script 15 seconds, 2 took any name.
_JOBS = 'rest.verify.program.jobs'
_SHORT_SCRIPT = 500  # Characters; few of HumanEval and MBPP are longer.
_TESTS_MEMORY = 3  # Times the program's: they may hold both sides' values.


@dataclass(frozen=True, slots=True)
class ProgramConfig:
  """What a program may use. CPU time is that of all its processes together.

  Attributes:
    cpu_seconds: CPU time for one case of 'stdin' and 'call', or for a script of
      assertions, and as much again for every 500 characters of it: published
      solutions take 35 % at most, of MBPP, MBPP+, HumanEval and HumanEval+.
    total_cpu_seconds: CPU time for all cases together, and the most that any
      script gets.
    memory_mib: Memory of the program.
    processes: Processes and threads at a time, besides the first.
    file_mib: Size of any file that it writes, and of its output.
    allow_weak_sandbox: Whether resource limits will do where the host allows no
      real isolation.
  """

  cpu_seconds: float = 5.0
  total_cpu_seconds: float = 60.0
  memory_mib: int = 1024
  processes: int = 64
  file_mib: int = 8
  allow_weak_sandbox: bool = False


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
      lambda level: Sandbox(
        level, _JOBS, 'program', self._memory, config.processes
      ),
      config.allow_weak_sandbox,
    )
    self._sandboxes = {'program': program}

  def judge(self, program: str, tests: Tests) -> Verdict:
    """Returns the verdict on a program: 1.0, 0.0, or None for our own failure.

    Reasons: passed; wrong (a result is not what was expected), error (it ended
    by an exception, or has no such function), syntax (it is no Python),
    timeout, memory, output (too much of it), broken (its sandbox failed twice,
    but not for a harmless program); untested (the tests ask the program
    nothing, or need its own process) or sandbox (it failed for the harmless
    program too), both with reward None.

    Invariant: None depends on the tests and on this host alone. For a program
    that ended its fork server twice, `print(input())` is asked in a new one; if
    that passes, the program has broken what holds for others, and has failed.

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
      except MemoryError:  # Only what programs write can be as large.
        self.close()
        return _verdict('output')
      except BaseException:
        self.close()  # A job may be half done.
        raise
    # What holds for others, and not for this program, is broken by it.
    return _verdict('broken' if self._holds() else 'sandbox')

  def deadline(self, tests: Tests) -> float:
    """Returns the seconds after which a verdict is overdue on any host."""
    config = self._config
    if tests.kind == 'assert':
      seconds = wall_seconds(self._script_cpu(tests), MAX_LOAD)
    else:
      cases = len(tests.inputs)
      cpu = min(config.cpu_seconds * cases, config.total_cpu_seconds)
      seconds = wall_seconds(cpu, MAX_LOAD) + cases * IDLE_SECONDS * MAX_LOAD
    # Two attempts, sandboxes that hang and start anew, and the harmless one.
    return 2 * (seconds + START_SECONDS + END_SECONDS) + 2 * START_SECONDS

  def _holds(self) -> bool:
    """Whether the sandbox serves a harmless program."""
    tests = Tests('stdin', inputs=('7',), outputs=('7',))
    try:
      return self._judge_cases('print(input())', tests) == 'passed'
    except SandboxError:
      self.close()
      return False

  def close(self) -> None:
    """Ends the sandboxes; a later judgement starts new ones."""
    while self._sandboxes:
      _, sandbox = self._sandboxes.popitem()
      sandbox.close()

  def _sandbox(self, role: str, source: str) -> Sandbox:
    """Returns the sandbox for a source; NumPy is imported where it is named."""
    modules = ['numpy'] if 'numpy' in source else []
    name = ' '.join([role, *modules])
    if name not in self._sandboxes:
      memory = self._memory * (_TESTS_MEMORY if role == 'tests' else 1)
      self._sandboxes[name] = Sandbox(
        self.level, _JOBS, role, memory, self._config.processes, modules
      )
    return self._sandboxes[name]

  def _script_cpu(self, tests: Tests) -> float:
    """Returns the CPU time for a script: long ones test much."""
    times = 1 + len(tests.script) // _SHORT_SCRIPT
    return min(self._config.cpu_seconds * times, self._config.total_cpu_seconds)

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
    results, reason, used = self._call(program, asked, cpu, tests.preamble)
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
    self, program: str, asked: Sequence[Case], cpu: float, preamble: str = ''
  ) -> tuple[list[Any], str, float]:
    """Returns encoded results, why there are none if so, and the CPU time."""
    encode = Values().encode
    calls = [
      [x.function, encode(x.arguments), encode(x.named), encode(x.views)]
      for x in asked
    ]
    given = dump({'preamble': preamble, 'calls': calls})
    ended, output, reason = self._run('call', program, given, cpu)
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
    sandbox = self._sandbox('program', program)
    limits = self._limits(cpu)
    with contextlib.ExitStack() as files:
      descriptors = [memory_file(x, files) for x in (program, given, '')]
      sandbox.start(role, limits, descriptors)
      if late := overdue([sandbox], cpu):
        sandbox.stop()
      ended = sandbox.finish()
      output = os.pread(descriptors[-1], limits.file, 0)
    if len(output) == limits.file:
      return ended, output, 'output'
    if late:
      return ended, output, 'timeout'
    reason = _cause(ended, limits) or (ended.status != 0 and 'error') or ''
    return ended, output, reason

  def _judge_script(self, program: str, tests: Tests) -> str:
    """Judges by assertions: as values where they are no more than that."""
    cpu = self._script_cpu(tests)
    if asked := reader.read(tests.script, tests.entry_point):
      return self._judge_values(program, asked, cpu)
    return self._judge_linked(program, tests, cpu)

  def _judge_linked(self, program: str, tests: Tests, cpu: float) -> str:
    """Runs assertions in one sandbox against a program in the other.

    Invariant: only the tests' process holds `result`. It says 'error' from its
    first moment on, and better at the end of the whole script alone; so
    whatever ends, hangs or breaks either process earlier is no pass, and no
    outcome at all means that we have failed.

    Example: `s = Stack([1]); assert s.pop() == 1` asks over `second` for the
    name Stack, for its call and for `pop`; the program's end of the socket,
    `first`, answers with a class, an object, and 1. 'passed' is written, and
    the program is stopped while it waits for the next question.
    """
    candidate = self._sandbox('program', program)
    tester = self._sandbox('tests', tests.script)
    limits = self._limits(cpu)
    roomy = self._limits(cpu, _TESTS_MEMORY)
    first, second = socket.socketpair()
    script = {'script': tests.script, 'entry_point': tests.entry_point}
    with contextlib.ExitStack() as files, first, second:
      texts = (program, json.dumps(script), '')
      source, asked, result = (memory_file(text, files) for text in texts)
      candidate.start('serve', limits, [source, first.fileno()])
      tester.start('test', roomy, [asked, second.fileno(), result])
      first.close()
      second.close()
      # A program that dies ends its tests too.
      late = overdue([tester, candidate], cpu)
      tester.stop()
      candidate.stop()
      tested, ended = tester.finish(), candidate.finish()
      outcome = os.pread(result, 64, 0).decode()
    if not (outcome or late):
      raise SandboxError('The tests did not start.')
    if outcome not in ('', 'error'):
      return outcome
    explained = _cause(ended, limits) or _cause(tested, roomy)
    return 'timeout' if late else explained or outcome


def _cause(ended: Ended, limits: Limits) -> str:
  """Returns what more than an exception ended a job, or ''."""
  if ended.out_of_memory or ended.status == MEMORY_STATUS:
    return 'memory'
  if ended.cpu > limits.cpu:
    return 'timeout'
  return 'syntax' if ended.status == SYNTAX_STATUS else ''


def _reason(right: bool) -> str:
  return 'passed' if right else 'wrong'


def _verdict(reason: str) -> Verdict:
  if reason in ('untested', 'sandbox'):
    return Verdict(None, reason, VERSION)
  return Verdict(float(reason == 'passed'), reason, VERSION)
