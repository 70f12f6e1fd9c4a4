"""The configs of published sets name tasks and fields that exist."""

import importlib
from typing import Any

import pytest

from configs import base
from rest import tasks


@pytest.mark.parametrize('name', ['apps', 'gsm8k', 'math', 'mbpp'])
def test_configs_make_the_task_that_they_name(name):
  config: Any = importlib.import_module(f'configs.{name}').get_config()
  assert config.name == config.task.name == name
  task = tasks.make(tasks.TaskConfig(**config.task))
  assert task.name == name
  assert task.prefix
  published: Any = base.get_config()
  for section in ('task', 'em', 'estep', 'sampling', 'mstep', 'eval'):
    assert set(config[section]) == set(published[section])
  # What is drawn fits into a training row.
  sampling = config.sampling
  if name != 'mbpp':  # Its longest prompt is in test.
    longest = sampling.max_prompt_tokens + sampling.max_tokens
    assert longest <= config.mstep.row_length
  assert max(config.eval.pass_k) <= config.eval.num_samples
