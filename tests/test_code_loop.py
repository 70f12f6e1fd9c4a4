"""The E-step on programs, from a model that follows a script.

A tiny model cannot learn to program honestly, so the sampler's place is taken
by a script; all else is real: prompts, sandbox, verdicts, store, filter.
"""

import contextlib
import io
import json
import pathlib

import jax
import numpy as np
import pytest

from rest import tasks
from rest.config import EStepConfig
from rest.e_step.draw import Tools, e_step
from rest.e_step.graders import Graders
from rest.model import sharding, tokenizer
from rest.run import store
from rest.run.dataset import read_dataset
from rest.sampler import Stats
from rest.sampler.order import Sampled
from rest.tasks import TaskConfig
from rest.types import Preempted
from rest.verify import VerifyConfig

ROOT = pathlib.Path(__file__).parent.parent


class Script:
  """Answers with the reference solution, what is wrong, and what cheats."""

  def __init__(self, task, codec):
    self.codec = codec
    self.stats = Stats()
    self.drawn = 0
    self.texts = [
      (task.target(problem), *WRONG) for problem in task.problems('train')
    ]

  def draw(self, prefix, asks, *, samples, withdrawn, stop):
    assert '[DONE]' in stop
    assert self.codec.decode(prefix[1:]).startswith('You are an expert')
    for position, ask in enumerate(asks):
      question = self.codec.decode(ask.tokens, follows=True)
      texts = next(t for t in self.texts if name_of(t[0]) in question)
      assert position not in withdrawn
      for sample in reversed(ask.samples):  # Order must not matter.
        self.drawn += 1
        text = texts[sample]
        tokens = (*self.codec.encode(text, follows=True), self.codec.eos[0])
        tokens_T = np.array(tokens)
        yield [Sampled(position, sample, tokens_T, tokens_T * 0.0)]


WRONG = (
  'def nothing():\n  return None\n',
  'import os\nos._exit(0)\n',
  'raise ValueError\n',
)


def name_of(program: str) -> str:
  """Returns the name of the last function that a program defines."""
  return program.rsplit('def ', 1)[1].split('(')[0].strip()


@pytest.fixture(scope='module')
def task():
  path = str(ROOT / 'tests/data/tasks/mbpp')
  return tasks.make(TaskConfig('mbpp', path, num_train=3, num_validation=1))


@pytest.fixture(scope='module')
def graders(codec):
  config = VerifyConfig(allow_weak_sandbox=True)  # Whatever the host allows.
  said = io.StringIO()
  with contextlib.ExitStack() as stack:
    with contextlib.redirect_stderr(said):
      graders = stack.enter_context(Graders(config, ('program',), codec))
      graders.ready()
    # Whoever starts a run learns, once, what holds its programs.
    assert said.getvalue().count('in a sandbox of level') == 1
    yield graders


@pytest.fixture(scope='module')
def codec():
  return tokenizer.load(str(ROOT / 'rest/model/assets/arithmetic-1m'))


def _tools(task, graders, codec, should_stop=lambda: False) -> Tools:
  mesh = sharding.make_mesh(sharding.MeshConfig(), jax.devices()[:1])
  script = Script(task, codec)
  return Tools(script, mesh, graders, task, codec, should_stop)  # pyright: ignore[reportArgumentType]


def _run(tools, task, folder):
  problems = task.problems('train')
  e_step(tools, problems, EStepConfig(num_samples=4), folder, 1, 0.0)


def test_programs_that_pass_are_kept_and_no_others(
  task, graders, codec, tmp_path
):
  _run(_tools(task, graders, codec), task, tmp_path)
  summary = json.loads((tmp_path / 'e_step.json').read_text())
  assert summary['sampled'] == 12
  assert summary['correct'] == summary['kept'] == summary['solved'] == 3
  assert summary['unknown'] == 0
  kept = [*read_dataset(tmp_path / 'dataset.jsonl')]
  assert [row.sample for row in kept] == [0, 0, 0]


def test_a_stopped_e_step_goes_on_with_what_is_missing(
  task, graders, codec, tmp_path
):
  tools = _tools(task, graders, codec, should_stop=lambda: True)
  with pytest.raises(Preempted):
    _run(tools, task, tmp_path)
  done = len(store.Parts(tmp_path / 'parts').done())
  assert done >= 1
  assert not (tmp_path / 'dataset.jsonl').exists()
  tools = _tools(task, graders, codec)
  _run(tools, task, tmp_path)
  # The graders may still have been at work on what was sent.
  assert tools.sampler.drawn <= (3 - done) * 4
  assert len([*read_dataset(tmp_path / 'dataset.jsonl')]) == 3
