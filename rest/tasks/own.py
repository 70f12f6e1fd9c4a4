"""A set of one's own: a class in a file, and what it must hold."""

from rest.config import TaskConfig
from rest.tasks.problem_set import SPLITS, ProblemSet
from rest.types import Problem
from rest.verify import user_file
from rest.verify.program import malformed


def make(config: TaskConfig) -> ProblemSet:
  """Returns the task of a file, after a look at all that it asks.

  Raises:
    ValueError: The file fails, in a line that it names, or its class is no
      problem set.
  """
  path = config.name.rpartition(':')[0]
  task = load(config)
  with user_file.naming_lines(path):
    for split in SPLITS:
      for problem in task.problems(split):
        _check(problem, task.verifier, f'{path}: {split}')
        if not isinstance(task.question(problem), str):
          raise ValueError(f'{path}: question() must return a text.')
  return task


def load(config: TaskConfig) -> ProblemSet:
  """Returns the task of a file; nothing of it is read yet.

  Raises:
    ValueError: As in `make`.
  """
  path = config.name.rpartition(':')[0]
  kind = user_file.load(config.name, 'task.name')
  if not (isinstance(kind, type) and issubclass(kind, ProblemSet)):
    raise ValueError(
      f'task.name={config.name!r} must be a class made from'
      f' rest.tasks.ProblemSet, got {kind!r:.60}.'
    )
  for name in ('name', 'verifier'):
    if not isinstance(getattr(kind, name, None), str):
      raise ValueError(f'{path}: {kind.__name__}.{name} must be a text.')
  with user_file.naming_lines(path):
    return kind(config)


def _check(problem: Problem, verifier: str, where: str) -> None:
  """Refuses a problem that could not be asked, or not be judged."""
  where = f'{where}, problem {problem.id!r}'
  has_answer = verifier in ('math', 'exact')
  for name in ('id', 'question', *['answer'] * has_answer):
    value = getattr(problem, name)
    if not isinstance(value, str):
      raise ValueError(f'{where}: {name} must be text, got {value!r:.60}.')
  if verifier == 'program':
    if problem.tests is None:
      raise ValueError(f'{where}: it has no tests.')
    try:
      malformed.check(problem.tests)
    except ValueError as error:
      raise ValueError(f'{where}: {error}') from error
