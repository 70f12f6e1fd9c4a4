"""Problem sets: where problems come from, how they are asked, who judges."""

import dataclasses
import hashlib
import json

from rest.config import TaskConfig
from rest.tasks import jsonl, own
from rest.tasks.arithmetic.arithmetic import Arithmetic
from rest.tasks.chat import Chat
from rest.tasks.countdown import Countdown
from rest.tasks.problem_set import SPLITS, ProblemSet
from rest.tasks.sets.apps import Apps
from rest.tasks.sets.bbh import Bbh
from rest.tasks.sets.gsm8k import Gsm8k
from rest.tasks.sets.humaneval import HumanEval, HumanEvalPlus
from rest.tasks.sets.hungarian_exam import HungarianExam
from rest.tasks.sets.math import Math
from rest.tasks.sets.mbpp import Mbpp, MbppPlus
from rest.types import Problem, Task
from rest.verify import reward, user_file
from rest.verify.request import VERIFIERS

__all__ = ['SPLITS', 'TASKS', 'Problem', 'ProblemSet', 'digest', 'make']

TASKS: dict[str, type[ProblemSet]] = {
  'apps': Apps,
  'arithmetic': Arithmetic,
  'bbh': Bbh,
  'countdown': Countdown,
  'gsm8k': Gsm8k,
  'humaneval': HumanEval,
  'humaneval_plus': HumanEvalPlus,
  'hungarian_exam': HungarianExam,
  'jsonl': jsonl.Jsonl,
  'math': Math,
  'mbpp': Mbpp,
  'mbpp_plus': MbppPlus,
}


def make(config: TaskConfig) -> ProblemSet:
  """Returns the task that a config names.

  Raises:
    ValueError: The name, or another field, is not one that exists; or a file of
      the user's is wrong.
  """
  is_own = user_file.is_named(config.name)
  if not is_own and config.name not in TASKS:
    raise ValueError(
      f'task.name must be one of {sorted(TASKS)}, or a class in a file as in'
      f" 'path/to/task.py:MyTask'; got {config.name!r}."
    )
  for field in jsonl.FIELDS if config.name != 'jsonl' else ():
    value = getattr(config, field)
    if value != getattr(TaskConfig(), field):
      raise ValueError(
        f"task.{field} is of name='jsonl' alone; got {value!r} for"
        f' {config.name!r}.'
      )
  task = own.make(config) if is_own else TASKS[config.name](config)
  if user_file.is_named(task.verifier):
    reward.load(task.verifier)
  elif task.verifier not in VERIFIERS:
    raise ValueError(
      f'The verifier of {config.name} (task.verifier) must be one of'
      f" {VERIFIERS} or as in 'path/to/reward.py:reward', got"
      f' {task.verifier!r}.'
    )
  if is_own or config.verifier:  # What is asked changes with the user's files.
    named = filter(user_file.is_named, (config.name, task.verifier))
    task.version = '-'.join((task.version, *map(user_file.digest, named)))
  return task


def for_model(config: TaskConfig, model: str) -> Task:
  """Returns the task that a config names, as a model is asked.

  Args:
    config: What is asked, and in which form.
    model: A checkpoint directory, which has the form of a chat.

  Raises:
    FileNotFoundError: There is no such directory.
    ValueError: A field is wrong, or the model has no form for a chat.
  """
  task = make(config)
  return Chat(task, model) if config.prompt == 'chat' else task


def digest(task: Task) -> str:
  """Returns a sha256 of everything a task asks: prompts, problems, answers."""
  sha = hashlib.sha256(f'{task.name} {task.version} {task.prefix}'.encode())
  for split in SPLITS:
    for problem in task.problems(split):
      fields = dataclasses.asdict(problem)
      sha.update(json.dumps([split, task.question(problem), fields]).encode())
  return sha.hexdigest()
