"""What the pool is asked, how it is set up, and what it has done."""

from dataclasses import dataclass

from rest.types import Problem, Task, Tests


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
