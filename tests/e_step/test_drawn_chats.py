"""A chat is drawn, kept and trained on as the text that it is."""

import dataclasses

import jax
import pytest
import small_chat
from etils import epath
from small_run import BASE

from rest import tasks
from rest.config import EMConfig, EStepConfig, SamplerConfig, VerifyConfig
from rest.e_step.draw import Tools, e_step, prompt_tokens
from rest.e_step.graders import Graders
from rest.m_step.examples import training_examples
from rest.model import tokenizer, weights
from rest.model.sharding import MeshConfig, make_mesh
from rest.run.spool import spool
from rest.sampler import Sampler
from rest.tasks.arithmetic.arithmetic import Arithmetic
from rest.tasks.chat import Chat


class Plain(Arithmetic):
  """Asks a chat for nothing but the question."""

  def message(self, problem):
    return problem.question


def _draw(model, task, folder):
  """Draws 4 samples of 6 problems; returns the dataset and the examples."""
  mesh = make_mesh(MeshConfig(), jax.devices()[:1])
  codec = tokenizer.load(model, task.turn_end)
  base = weights.load(model, mesh, 'float32')
  sampler = Sampler(
    base.config,
    codec,
    SamplerConfig(max_tokens=96, max_prompt_tokens=256, rows=8),
    mesh,
    seed=0,
  )
  sampler.set_weights(base)
  with Graders(VerifyConfig(workers=1), ('math',), codec) as graders:
    tools = Tools(sampler, mesh, graders, task, codec, lambda: False)
    problems = task.problems('train')
    config = EStepConfig(num_samples=4)
    e_step(tools, problems, config, epath.Path(folder / 'iteration_1'), 1, 0.0)
  with spool(epath.Path(folder)) as disk:
    examples = [
      dataclasses.replace(
        example,
        question=tuple(example.question),
        completion=tuple(example.completion),
      )
      for example in training_examples(
        disk, epath.Path(folder), task, codec, EMConfig(), 512, 1, print
      )
    ]
  first = [prompt_tokens(task, codec, problem) for problem in problems]
  return (folder / 'iteration_1/dataset.jsonl').read_text(), examples, first


@pytest.fixture(scope='module')
def config():
  return tasks.TaskConfig('arithmetic', prompt='chat', num_train=6)


def test_a_chat_that_is_the_text_gives_the_datasets_of_the_text(
  config, tmp_path
):
  model = small_chat.write(tmp_path / 'model')
  text = Plain(dataclasses.replace(config, prompt='zero_shot'))
  dataset, examples, _ = _draw(BASE, text, tmp_path / 'text')
  chat, chat_examples, _ = _draw(model, Chat(Plain(config), model), tmp_path)
  assert dataset.count('\n') > 1
  assert chat == dataset
  assert chat_examples == examples


def test_training_sees_the_tokens_that_were_sampled(config, tmp_path):
  turns = small_chat.PLAIN.replace('m.content', "'- ' + m.content")
  model = small_chat.write(tmp_path / 'model', turns)
  _, examples, asked = _draw(model, Chat(Plain(config), model), tmp_path)
  prompts = {(*prefix, *question) for prefix, question in asked}
  assert examples
  assert {(*e.prefix, *e.question) for e in examples} <= prompts
  assert all(example.completion[-1] == 2 for example in examples)
