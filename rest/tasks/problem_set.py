"""What all problem sets share: how they are read, split and cut down."""

import functools
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from etils import epath

from rest.config import TaskConfig
from rest.tasks import code, files
from rest.types import Problem
from rest.verify import user_file

SPLITS = ('train', 'validation', 'test')

# What a chat says of the form of an answer, where no examples show it.
_INSTRUCTIONS = {
  'math': 'Please reason step by step, and put your final answer within '
  '\\boxed{}.',
  'exact': "Please reason step by step, and end with 'So the answer is ...'.",
  'program': 'Please answer with the whole program, between ```python and ```.',
}


class ProblemSet:
  """A problem set, most often read from the files that its authors published.

  A subclass says how to read one published split and how to ask. Where there is
  no published validation or test split, it is carved from train. Sets that only
  test have no problems elsewhere. A set of one's own is a subclass in a file:
  docs/own_problems.md shows one.

  Attributes:
    name: As in `rest.types.Task`, as are version, verifier, prefix and stop.
    download: What to download, where the files are not there.
    splits: Which splits are published.
    prompts: Values of `config.prompt`, the default first; and 'chat'.
    variants: Values of `config.split`, the default first.
    example: Matches an example in `shots()`: what is asked, what is
      answered; '' where there are none.
  """

  name: str
  version = '1'
  verifier: str
  download: str
  prefix = ''
  stop: tuple[str, ...] = ()
  turn_end = ''
  splits: tuple[str, ...] = ('train', 'test')
  prompts: tuple[str, ...] = ('few_shot', 'zero_shot')
  variants: tuple[str, ...] = ('',)
  example = ''

  def __init__(self, config: TaskConfig):
    self.config = config
    self.prompt = config.prompt or self.prompts[0]
    self.variant = config.split or self.variants[0]
    for field, value, known in (
      ('prompt', self.prompt, (*self.prompts, 'chat')),
      ('split', self.variant, self.variants),
    ):
      if value not in known:
        raise ValueError(
          f'task.{field} of {self.name} must be one of {known}, got {value!r}.'
        )
    if self.prompt == 'few_shot':
      self.prefix = self.shots()
    self._chosen = functools.cache(self._choose)

  def __reduce__(self) -> tuple[Callable, tuple[TaskConfig]]:
    """Another process makes it anew; problems are read where they are asked."""
    if user_file.is_named(self.config.name):
      from rest.tasks import own  # It stands on this file.

      return own.load, (self.config,)
    return type(self), (self.config,)

  def read(self, split: str) -> Iterable[Problem]:
    """Returns a published split from the original files in config.path."""
    raise NotImplementedError

  def read_folder(self, folder: epath.Path) -> Iterator[files.Record]:
    """Yields records that their authors published as a tree of files."""
    raise ValueError(f'{folder} must be a file of problems.')

  def shots(self) -> str:
    """Returns the examples that stand before every question."""
    return ''

  def question(self, problem: Problem) -> str:
    return problem.question

  def statement(self, problem: Problem) -> str:
    """Returns what sets a problem, without the form of a text to go on."""
    return problem.question

  def message(self, problem: Problem) -> str:
    """Returns what the user of a chat says."""
    statement = self.statement(problem).strip()
    if self.config.shots:
      return statement
    return f'{statement}\n\n{_INSTRUCTIONS[self.verifier]}'

  def turns(self) -> list[tuple[str, str]]:
    """Returns the examples of `shots`: what is asked, what is answered."""
    if not self.example:
      return []
    return re.findall(self.example, self.shots(), re.DOTALL)

  def target(self, problem: Problem) -> str:
    """Returns the human solution as a completion; raises where is none."""
    if problem.solution is None:
      raise ValueError(f'{self.name} has no human solutions to train on.')
    return problem.solution

  def program(self, problem: Problem, completion: str) -> str:
    if problem.tests is None:
      raise ValueError(f'{self.name} is not judged by running programs.')
    return code.program(completion, problem.tests)

  def records(self, *names: str) -> Iterator[files.Record]:
    """Yields the records of the first of these names that is there."""
    paths = files.find(self.config.path, names, self.download)
    if paths[0].is_dir():
      return self.read_folder(paths[0])
    return files.read(paths)

  def problems(self, split: str) -> list[Problem]:
    if split not in SPLITS:
      raise ValueError(f'split must be one of {SPLITS}, got {split!r}.')
    return list(self._chosen()[split])

  def _choose(self) -> dict[str, list[Problem]]:
    """Carves validation from train, then takes the config's share of each."""
    config = self.config
    published = self._published()
    train = published.get('train', [])
    test = published.get('test', train)
    if config.num_test:
      test = choose(test, config.num_test, 'task.num_test', config.seed)
    if 'test' not in published:
      if not config.num_test:
        raise ValueError(
          f'{self.name} has no test split: say with task.num_test how many of'
          f' the {len(train)} problems of train to hold out.'
        )
      train = _without(train, test)
    held_out = published.get('validation', train)
    if held_out:
      field = 'task.num_validation'
      held_out = choose(held_out, config.num_validation, field, config.seed)
      train = _without(train, held_out)
    if config.num_train:
      train = choose(train, config.num_train, 'task.num_train', config.seed)
    if config.solved_by:
      path = epath.Path(config.solved_by) / 'dataset.jsonl'
      if not path.exists():
        raise ValueError(
          f'task.solved_by={config.solved_by!r}: no {path.name}.'
        )
      solved = {record.text('problem') for record in files.read_jsonl(path)}
      train = [problem for problem in train if problem.id in solved]
    return {'train': train, 'validation': held_out, 'test': test}

  def _published(self) -> dict[str, list[Problem]]:
    """Reads every published split, from the original files or from a copy."""
    path, read = self.config.path, self.read
    if path and (epath.Path(path) / 'dataset_info.json').exists():
      from rest.tasks import prepared  # Half a second, for copies alone.

      read = prepared.reader(path, self)
    published = {split: list(read(split)) for split in self.splits}
    for split, problems in published.items():
      for problem in problems:
        if not isinstance(problem, Problem):
          raise ValueError(
            f'{self.name}: read({split!r}) must yield Problems, got'
            f' {problem!r:.60}.'
          )
      counts = Counter(problem.id for problem in problems)
      for name, count in counts.most_common(1):
        if count > 1:
          raise ValueError(
            f'task.path={path!r} has problem {name!r} {count} times in'
            f' {split}: are there two copies of the files?'
          )
    return published


def choose(
  problems: list[Problem], size: int, field: str, seed: int
) -> list[Problem]:
  """Returns so many random problems in the order of the set.

  A larger choice contains every smaller one of the same seed.

  Args:
    problems: What to choose from.
    size: How many.
    field: Config field to name where there are too few.
    seed: Of the choice.
  """
  if not 0 <= size <= len(problems):
    raise ValueError(
      f'{field} must be between 0 and {len(problems)}, the number of problems'
      f' there are, got {size}.'
    )
  ranked = sorted(problems, key=lambda p: _order(p, seed))
  chosen = {p.id for p in ranked[:size]}
  return [p for p in problems if p.id in chosen]


def _without(
  problems: list[Problem], others: Iterable[Problem]
) -> list[Problem]:
  ids = {problem.id for problem in others}
  return [problem for problem in problems if problem.id not in ids]


def _order(problem: Problem, seed: int) -> str:
  return hashlib.sha256(f'{seed}/{problem.id}'.encode()).hexdigest()
