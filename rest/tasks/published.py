"""What all published problem sets share: how they are split and read."""

import functools

from rest.tasks.config import SPLITS, TaskConfig, choose
from rest.types import Problem


class Published:
  """A problem set read from the files that its authors published.

  A subclass says how to read one published split and how to ask. Sets without
  training problems have an empty 'train' and 'validation'.
  """

  name: str
  version: str
  verifier: str
  prefix = ''
  stop: tuple[str, ...] = ()

  # Values of config.prompt and config.split, the default first.
  prompts: tuple[str, ...] = ('few_shot', 'zero_shot')
  variants: tuple[str, ...] = ('',)

  def __init__(self, config: TaskConfig):
    for field, value, known in (
      ('prompt', config.prompt, self.prompts),
      ('split', config.split or self.variants[0], self.variants),
    ):
      if value not in known:
        raise ValueError(
          f'task.{field} of {self.name} must be one of {known}, got {value!r}.'
        )
    self.config = config
    self.variant = config.split or self.variants[0]
    self._splits = functools.cache(self._read_splits)

  def read(self, split: str) -> list[Problem]:
    """Returns the published 'train' or 'test' problems of config.path."""
    raise NotImplementedError

  def question(self, problem: Problem) -> str:
    raise NotImplementedError

  def target(self, problem: Problem) -> str:
    raise NotImplementedError

  def program(self, problem: Problem, completion: str) -> str:
    raise ValueError(f'{self.name} is not judged by running programs.')

  def problems(self, split: str) -> list[Problem]:
    if split not in SPLITS:
      raise ValueError(f'split must be one of {SPLITS}, got {split!r}.')
    return list(self._splits()[split])

  def _read_splits(self) -> dict[str, list[Problem]]:
    config = self.config
    train, test = self.read('train'), self.read('test')
    held_out = []
    if train:
      held_out = choose(
        train, config.num_validation, 'task.num_validation', config.seed
      )
      ids = {problem.id for problem in held_out}
      train = [problem for problem in train if problem.id not in ids]
    if config.num_train:
      train = choose(train, config.num_train, 'task.num_train', config.seed)
    if config.num_test:
      test = choose(test, config.num_test, 'task.num_test', config.seed)
    return {'train': train, 'validation': held_out, 'test': test}
