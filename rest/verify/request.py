"""What the pool is asked, how it is set up, and what it has done."""

from dataclasses import dataclass

from rest.config import check
from rest.types import Problem, Task, Tests


@dataclass(frozen=True, slots=True)
class VerifyConfig:
  """How verdicts are reached.

  Attributes:
    workers: Interpreters that judge at the same time.
    timeout: Seconds for one verdict on an answer, from dispatch. Programs have
      deadlines of their own, by their tests.
    memory: MiB of address space that a worker may hold while it judges.
    queue: Requests that may wait; `submit` blocks while there are so many.
    cache: Verdicts remembered, at about 200 bytes each; 0 remembers none.
    nice: Niceness of the workers above this process's, so that they never
      starve the thread that feeds the device.
    max_unknown: Share of unknown verdicts above which a run stops.
    allow_weak_sandbox: Whether to judge programs where the host allows no
      better isolation than resource limits.
  """

  workers: int = 2
  timeout: float = 2.0
  memory: int = 512
  queue: int = 1024
  cache: int = 65_536
  nice: int = 10
  max_unknown: float = 0.005
  allow_weak_sandbox: bool = False

  def __post_init__(self):
    check(
      'verify',
      self,
      {
        'workers': '[1, inf)',
        'timeout': '(0, inf)',
        'memory': '[1, inf)',
        'queue': '[1, inf)',
        'cache': '[0, inf)',
        'nice': '[0, 19]',
        'max_unknown': '[0, 1]',
      },
    )


@dataclass(frozen=True, slots=True)
class Request:
  """One text to be judged.

  Attributes:
    verifier: 'math', 'exact' or 'program'; or 'hang', which never answers,
      for drills.
    text: The completion; for 'program', the whole program.
    gold: The reference answer or solution, for 'math' and 'exact'.
    tests: How the program is judged, for 'program'.
  """

  verifier: str
  text: str
  gold: str = ''
  tests: Tests | None = None


def make_request(task: Task, problem: Problem, text: str) -> Request:
  """Returns what the pool is asked about a completion's text."""
  if task.verifier == 'program':
    program = task.program(problem, text)
    return Request('program', program, tests=problem.tests)
  return Request(task.verifier, text, gold=problem.answer or '')


@dataclass(frozen=True, slots=True)
class Stats:
  """What a pool has done so far.

  Attributes:
    correct: Verdicts of reward 1.
    incorrect: Verdicts of reward below 1.
    unknown: Verdicts of no reward.
    cached: How many of these verdicts came from the cache.
    retried: Requests asked a second time.
    killed: Workers that hung or died, and were replaced.
    waiting: Requests without a verdict now.
  """

  correct: int
  incorrect: int
  unknown: int
  cached: int
  retried: int
  killed: int
  waiting: int
