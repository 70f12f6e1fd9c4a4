"""One text to be judged, and what is known of it before a worker is asked."""

import hashlib
from dataclasses import asdict, dataclass

from rest.types import Problem, Task, Tests, Verdict, without_thoughts
from rest.verify import exact, math, user_file
from rest.verify import reward as rewards

_ANSWERS = {'math': math, 'exact': exact}  # Who judge an extracted answer.
VERIFIERS = (*_ANSWERS, 'program')


@dataclass(frozen=True, slots=True)
class Request:
  """One text to be judged.

  Attributes:
    verifier: 'math', 'exact' or 'program'; 'path/to/reward.py:reward', a
      function of the user's; or 'hang', which never answers, for drills.
    text: The completion; for 'program', the whole program.
    gold: The reference answer or solution, for 'math' and 'exact'.
    tests: How the program is judged, for 'program'.
    problem: What the function is given, for one of the user's.
  """

  verifier: str
  text: str
  gold: str = ''
  tests: Tests | None = None
  problem: Problem | None = None


def is_verifier(name: str) -> bool:
  """Whether there is such a verifier."""
  return name in (*VERIFIERS, 'hang') or user_file.is_named(name)


def make_request(
  task: Task, problem: Problem, text: str, prompt: str = ''
) -> Request:
  """Returns what the pool is asked about a completion's text.

  Args:
    task: Says who judges.
    problem: What was asked.
    text: Of the completion; its thoughts are not judged.
    prompt: What it goes on: a template may have opened the thoughts there.
  """
  text = without_thoughts(prompt, text)
  if task.verifier == 'program':
    program = task.program(problem, text)
    return Request('program', program, tests=problem.tests)
  if user_file.is_named(task.verifier):
    return Request(task.verifier, text, problem=problem)
  return Request(task.verifier, text, gold=problem.answer or '')


def claim(request: Request) -> str | None:
  """Returns what is judged: the answer in the text, or the program."""
  if request.verifier in _ANSWERS:
    return _ANSWERS[request.verifier].extract(request.text)
  return request.text


def key(request: Request, claim: str | None) -> bytes:
  """Returns a digest of all that the verdict depends on."""
  version = verdict(request, None, '').verifier
  given = request.gold, claim, request.tests, request.problem
  parts = repr((version, *given))
  data = parts.encode(errors='surrogatepass')
  return hashlib.blake2b(data, digest_size=16).digest()


def message(request: Request, claim: str | None) -> dict[str, object]:
  """Returns what a worker is sent."""
  message: dict[str, object] = {'verifier': request.verifier, 'text': claim}
  if request.problem is not None:
    return message | {'problem': asdict(request.problem)}
  if request.tests is None:
    return message | {'gold': request.gold}
  return message | {'tests': asdict(request.tests)}


def verdict(request: Request, reward: float | None, reason: str) -> Verdict:
  """Returns a verdict that needed no worker, or that none would give."""
  version = request.verifier
  if version in _ANSWERS:
    version = _ANSWERS[version].VERSION
  elif user_file.is_named(version):
    version = rewards.version(version)
  return Verdict(reward, reason, version)


def known(verifiers: tuple[str, ...]) -> list[tuple[Request, float]]:
  """Returns requests whose rewards are beyond doubt."""
  sure: list[tuple[Request, float]] = []
  if 'math' in verifiers:
    sure += [
      (
        Request('math', r'So it is $\boxed{\frac{\sqrt{8}}{2}}$.', r'\sqrt2'),
        1,
      ),
      (Request('math', 'The total is 17.\n#### 17', '18'), 0),
      (Request('math', r'\boxed{x^2 - 1}', '(x - 1)(x + 2)'), 0),
    ]
  if 'exact' in verifiers:
    sure += [
      (Request('exact', 'So the answer is (B).', '(B)'), 1),
      (Request('exact', 'So the answer is (A).', '(B)'), 0),
    ]
  if 'program' in verifiers:
    tests = Tests('assert', 'def check(f):\n  assert f(2) == 3\n', 'f')
    echo = Tests('stdin', inputs=('7\n',), outputs=('7\n',))
    sure += [
      (Request('program', 'def f(x):\n  return x + 1\n', tests=tests), 1),
      (Request('program', 'def f(x):\n  return x\n', tests=tests), 0),
      (Request('program', 'while True:\n  pass\n', tests=echo), 0),
      (Request('program', 'import os\nos._exit(0)\n', tests=tests), 0),
    ]
  return sure
