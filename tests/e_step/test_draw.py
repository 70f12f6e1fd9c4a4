"""What is kept depends on samples and verdicts, never on order."""

import collections
import dataclasses
import itertools
import math
import pathlib
import random
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import pytest
from etils import epath

from rest import tasks
from rest.config import EStepConfig, EvaluateConfig
from rest.e_step.choose import choose, equations, weigh
from rest.e_step.draw import Tools, e_step, random_key
from rest.e_step.evaluate import asked_often
from rest.e_step.graders import Graders
from rest.e_step.summary import Choice
from rest.e_step.variants import keep_drawn
from rest.model import tokenizer, weights
from rest.model.sharding import MeshConfig, make_mesh
from rest.run import store
from rest.run.dataset import read_dataset
from rest.sampler import Sampler, SamplerConfig, Stats
from rest.sampler.order import Sampled
from rest.types import (
  Completion,
  Graded,
  Halted,
  Problem,
  Tokenizer,
  Verdict,
)
from rest.verify import VerifyConfig
from rest.verify.math import extract

BASE = str(
  pathlib.Path(__file__).parents[2] / 'rest/model/assets/arithmetic-1m'
)


def _row(
  sample: int,
  reward: float | None = 1.0,
  text: str | None = None,
  finished: bool = True,
) -> Graded:
  text = f'answer {sample}' if text is None else text
  completion = Completion(text, (1,), (-1.0,), 'token' if finished else 'limit')
  return Graded('p', sample, 'q', completion, Verdict(reward, '', 'math-1'))


def _kept(rows: list[Graded], config: EStepConfig) -> list[Choice]:
  return [choice for choice in choose(rows, config) if choice.kept]


def _samples(rows: list[Graded], config: EStepConfig) -> list[int]:
  return [choice.row.sample for choice in _kept(rows, config)]


def test_only_finished_correct_samples_are_kept():
  rows = [_row(0, 0.0), _row(1, None), _row(2, finished=False), _row(3)]
  assert _samples(rows, EStepConfig()) == [3]


def test_the_cap_takes_the_first_by_sample_index_in_any_order_of_arrival():
  rows = [_row(i, float(i % 3 != 0)) for i in range(12)]
  config = EStepConfig(cap=4)
  for seed in range(20):
    random.Random(seed).shuffle(rows)
    assert _samples(rows, config) == [1, 2, 4, 5]


def test_equal_texts_count_once_before_the_cap():
  rows = [
    _row(i, text=text) for i, text in enumerate(['a', 'a ', 'b', 'a', 'c'])
  ]
  assert _samples(rows, EStepConfig(cap=3)) == [0, 2, 4]
  assert _samples(rows, EStepConfig(cap=3, distinct='off')) == [0, 1, 2]


def test_equal_equations_count_once_whatever_the_words():
  texts = ['Now it is 3 + 4 = 7.', 'That makes 3+4 = 7.', 'So 4 + 3 = 7.', '7']
  rows = [_row(i, text=text) for i, text in enumerate(texts)]
  assert _samples(rows, EStepConfig(distinct='equations')) == [0, 2, 3]
  assert _samples(rows, EStepConfig()) == [0, 1, 2, 3]
  text = 'She pays <<2.5*4=10>>, then (10 - 1,000) / 3 = -330.'
  assert equations(text) == ('2.5*4=10', '(10-1,000)/3=-330')


def _weights(rewards: list[float | None], weight: str) -> list[float]:
  return weigh([_row(i, r) for i, r in enumerate(rewards)], weight)


def test_weights_are_f_of_the_reward():
  rewards = [1.0, 0.0, None]
  assert _weights(rewards, 'identity') == [1.0, 0.0, 0.0]
  assert _weights(rewards, 'exponential') == [math.e, 1.0, 0.0]
  assert _weights(rewards, 'best') == [1.0, 0.0, 0.0]
  assert _weights([0.0, None, 0.0], 'best') == [1.0, 0.0, 1.0]


def _answers(texts: Sequence[str]) -> list[str]:
  return [extract(text) or '' for text in texts]


def test_a_vote_keeps_the_commonest_answer_whatever_is_right():
  texts = ['#### 3', '#### 4', '#### 4', 'no answer', '#### 3']
  rows = [_row(i, float(i == 0), text) for i, text in enumerate(texts)]
  assert weigh(rows, 'majority', _answers) == [1.0, 0.0, 0.0, 0.0, 1.0]
  rows[4] = _row(4, 0.0, '#### 4 ')
  assert weigh(rows, 'majority', _answers) == [0.0, 1.0, 1.0, 0.0, 1.0]
  # Without a verdict there is no vote, and no weight.
  rows[4] = _row(4, None, '#### 3')
  rows[2] = _row(2, None, '#### 4')
  assert weigh(rows, 'majority', _answers) == [1.0, 0.0, 0.0, 0.0, 0.0]
  with pytest.raises(ValueError, match='majority'):
    weigh(rows, 'majority')


def test_the_cap_takes_what_weighs_most_first():
  rows = [_row(i, float(i in (2, 5))) for i in range(8)]
  config = EStepConfig(weight='exponential', cap=3)
  assert _samples(rows, config) == [0, 2, 5]
  assert [choice.weight for choice in _kept(rows, config)] == [
    1.0,
    math.e,
    math.e,
  ]
  assert _samples(rows, EStepConfig(weight='best', cap=1)) == [2]


def test_the_one_solution_kept_is_any_of_them_alike():
  rng = np.random.default_rng(0)
  chosen = collections.Counter(
    choice.row.completion.text
    for _ in range(3000)
    for choice in _kept(
      [_row(i, text='abc'[k]) for i, k in enumerate(rng.permutation(3))],
      EStepConfig(cap=1),
    )
  )
  assert all(900 < chosen[text] < 1100 for text in 'abc')


def test_a_cap_of_zero_keeps_all():
  rows = [_row(i) for i in range(40)]
  assert len(_kept(rows, EStepConfig(cap=0))) == 40


def test_random_keys_differ_by_problem_and_by_purpose():
  keys = {
    random_key(purpose, problem)
    for purpose, problem in itertools.product(
      [f'iteration {i}' for i in range(20)], [f'p/{i}' for i in range(100)]
    )
  }
  assert len(keys) == 2000


@pytest.fixture(scope='module')
def tools():
  """The embedded model on ten of its problems, one device, a small table."""
  mesh = make_mesh(MeshConfig(), jax.devices()[:1])
  task = tasks.make(
    tasks.TaskConfig(name='arithmetic', prompt='zero_shot', num_train=10)
  )
  letters = tokenizer.load(BASE)
  base = weights.load(BASE, mesh, 'float32')
  sampler = Sampler(
    base.config,
    letters,
    SamplerConfig(max_tokens=96, max_prompt_tokens=128, rows=8),
    mesh,
    seed=0,
  )
  sampler.set_weights(base)
  with Graders(VerifyConfig(workers=1), ('math',), letters) as graders:
    yield Tools(sampler, mesh, graders, task, letters, lambda: False)


CONFIG = EStepConfig(num_samples=8, cap=2)
STOPPING = dataclasses.replace(CONFIG, stop_at_cap=True)


def _sample(tools: Tools, config: EStepConfig, folder: pathlib.Path) -> None:
  problems = tools.task.problems('train')
  e_step(tools, problems, config, epath.Path(folder), 1, max_unknown=0.0)


@pytest.fixture(scope='module')
def stopped(tools, tmp_path_factory):
  """The folder of an E-step that stopped at the cap."""
  folder = tmp_path_factory.mktemp('stopped')
  _sample(tools, STOPPING, folder)
  return folder


def test_stopping_at_the_cap_gives_the_dataset_of_sampling_everything(
  tools, stopped, tmp_path
):
  _sample(tools, CONFIG, tmp_path)
  dataset = (tmp_path / 'dataset.jsonl').read_bytes()
  assert (stopped / 'dataset.jsonl').read_bytes() == dataset
  sampled = []
  for index in range(10):
    rows = store.Parts(stopped / 'parts').read(index)
    everything = store.Parts(tmp_path / 'parts').read(index)
    assert rows == everything[: len(rows)]
    # Up to the sample that met the cap, and no further.
    assert len(rows) == 8 or len(_kept(rows, CONFIG)) == 2
    assert len(_kept(rows[:-1], CONFIG)) < 2
    sampled.append(len(rows))
  assert min(sampled) < 8
  summary = store.read_json(stopped / 'e_step.json')
  assert summary['sampled'] == sum(sampled)


def test_what_stopped_at_the_cap_resumes_to_the_same_bytes(tools, stopped):
  files = {f: f.read_bytes() for f in stopped.rglob('*.json*')}
  for lost in [*files][::2]:
    lost.unlink()
  _sample(tools, STOPPING, stopped)
  assert {f: f.read_bytes() for f in stopped.rglob('*.json*')} == files


class Mumbler:
  """A sampler that never comes to an end."""

  def __init__(self, codec: Tokenizer):
    self.codec = codec
    self.drawn = 0
    self.stats = Stats()

  def draw(self, prefix, asks, *, samples, **unused):
    said = self.codec.encode('Let me see. ' * 99, follows=True)
    for position, ask in enumerate(asks):
      for sample in ask.samples:
        self.drawn += 1
        end = [self.codec.eos[0]] if sample % 4 == 0 else []
        tokens_T = np.array(said + end)
        yield [Sampled(position, sample, tokens_T, tokens_T * 0.0)]


def test_an_e_step_that_is_mostly_cut_off_ends_early_and_says_what_to_raise(
  tools, tmp_path
):
  sampler: Any = Mumbler(tools.tokenizer)
  mumbling = dataclasses.replace(tools, sampler=sampler)
  config = EStepConfig(num_samples=600)
  with pytest.raises(Halted, match=r'900 of 1,200 .*max_cut_off=0.5') as error:
    _sample(mumbling, config, tmp_path)
  assert 'sampling.max_tokens' in str(error.value)
  assert sampler.drawn < 6000
  assert len(store.Parts(tmp_path / 'parts').done()) >= 2  # Nothing is lost.
  few = EStepConfig(num_samples=8)  # Too few to tell before the end.
  with pytest.raises(Halted, match='60 of 80 '):
    _sample(mumbling, few, tmp_path / 'few')
  allowed = EStepConfig(num_samples=8, max_cut_off=0.8)
  _sample(mumbling, allowed, tmp_path / 'few')
  summary = store.read_json(tmp_path / 'few/e_step.json')
  assert summary['ended'] == {'token': 20, 'stop': 0, 'limit': 60}
  assert summary['unreadable'] == 80


def test_samples_of_another_run_are_encoded_anew_or_left_out(tools, tmp_path):
  problem = tools.task.problems('train')[0]
  texts = ['#### 3', 'a\u2581b', '#### 4']  # SentencePiece's own space.
  rows = [
    Graded(
      problem.id,
      sample,
      'their prompt',
      Completion(text, (9, 9, 9), (-1.0,) * 3, 'token'),
      Verdict(1.0, 'equal', 'math-1'),
    )
    for sample, text in enumerate(texts)
  ]
  parts = store.Parts(tmp_path / 'parts')
  parts.write(0, rows)
  summary, left_out = keep_drawn(
    tools.task.problems('train'),
    parts,
    tools.task,
    tools.tokenizer,
    EStepConfig(num_samples=3),
    epath.Path(tmp_path),
    0.0,
    tools.graders,
  )
  kept = [*read_dataset(tmp_path / 'dataset.jsonl')]
  codec = tools.tokenizer
  assert [row.text for row in kept] == ['#### 3', '#### 4']
  assert (summary.sampled, left_out) == (2, 1)
  assert {row.prompt for row in kept} == {tools.task.question(problem)}
  assert all(row.tokens[-1] == codec.eos[0] for row in kept)


@pytest.mark.parametrize(
  ('field', 'value'),
  [
    ('max_cut_off', 1.5),
    ('num_samples', 0),
    ('cap', -1),
    ('distinct', True),
    ('weight', 'r'),
  ],
)
def test_a_wrong_field_is_named(field: str, value: Any):
  with pytest.raises(ValueError, match=f'estep.{field}'):
    EStepConfig(**{field: value})


def test_pass_at_k_is_of_all_subjects_and_of_the_same_problems_when_of_more():
  problems = [
    Problem(f'p{i}', 'q', '1', subject='ab'[i >= 50]) for i in range(100)
  ]

  def asked(count: int) -> list[Problem]:
    return asked_often(problems, EvaluateConfig(num_problems=count))

  few = asked(20)
  assert {p.subject for p in few} == {'a', 'b'}
  assert [p for p in asked(60) if p in few] == few
  assert len(few) == 20
  assert asked(0) == asked(500) == problems
