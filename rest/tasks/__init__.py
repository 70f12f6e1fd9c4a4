"""Problem sets: where problems come from, how they are asked, who judges."""

import dataclasses
import hashlib
import json

from rest.config import TaskConfig
from rest.tasks.arithmetic.arithmetic import Arithmetic
from rest.tasks.chat import Chat
from rest.tasks.problem_set import SPLITS, ProblemSet
from rest.tasks.sets.apps import Apps
from rest.tasks.sets.bbh import Bbh
from rest.tasks.sets.gsm8k import Gsm8k
from rest.tasks.sets.humaneval import HumanEval, HumanEvalPlus
from rest.tasks.sets.hungarian_exam import HungarianExam
from rest.tasks.sets.math import Math
from rest.tasks.sets.mbpp import Mbpp, MbppPlus
from rest.types import Task

TASKS: dict[str, type[ProblemSet]] = {
  'apps': Apps,
  'arithmetic': Arithmetic,
  'bbh': Bbh,
  'gsm8k': Gsm8k,
  'humaneval': HumanEval,
  'humaneval_plus': HumanEvalPlus,
  'hungarian_exam': HungarianExam,
  'math': Math,
  'mbpp': Mbpp,
  'mbpp_plus': MbppPlus,
}


def make(config: TaskConfig) -> ProblemSet:
  """Returns the task that a config names.

  Raises:
    ValueError: The name, or another field, is not one that exists.
  """
  if config.name not in TASKS:
    raise ValueError(
      f'task.name must be one of {sorted(TASKS)}, got {config.name!r}.'
    )
  return TASKS[config.name](config)


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
