"""Thoughts are no answer: not judged, folded, trained on only where wanted."""

import jax
import numpy as np
import pytest
from vocabularies import byte_level, write_json

from rest import tasks
from rest.config import EStepConfig, MeshConfig, VerifyConfig
from rest.e_step.choose import choose, make_dataset
from rest.e_step.draw import Timing, Tools, draw
from rest.e_step.graders import Graders
from rest.e_step.summary import UNFINISHED, Tally
from rest.model import sharding, tokenizer
from rest.report.samples import _line
from rest.run import dataset
from rest.sampler import Stats
from rest.sampler.order import Sampled
from rest.tasks.arithmetic.arithmetic import Arithmetic
from rest.types import Completion, Graded, Verdict, answer_start
from rest.verify import Pool
from rest.verify.answers import vote

ASKED = 'How many?<|im_end|>\n<|im_start|>assistant\n'
OPENED = ASKED + '<think>\n'
THOUGHT = 'Is it #### 4? No.\n</think>\n\n#### 5'
CASES = [
  # Prompt, text, what is judged; None where the thoughts never end.
  (ASKED, '#### 5', '#### 5'),
  (ASKED, f'<think>\n{THOUGHT}', '\n\n#### 5'),
  (OPENED, THOUGHT, '\n\n#### 5'),
  (OPENED, f'a</think>{THOUGHT}', '\n\n#### 5'),
  (ASKED, '\n<think>\n#### 5', None),
  (OPENED, '#### 5', None),
  (OPENED, 'a</think>\n<think>\n#### 5', None),
  (ASKED, "s.split('</think>')", "s.split('</think>')"),
  (ASKED, 'Say <think>: #### 5', 'Say <think>: #### 5'),
  (OPENED, '', None),
  (ASKED, '', ''),
]


@pytest.fixture(scope='module')
def codec(tmp_path_factory):
  path = tmp_path_factory.mktemp('codec') / 'tokenizer'
  return tokenizer.load(str(write_json(path, byte_level())))


@pytest.fixture(scope='module')
def pool():
  with Pool(VerifyConfig(workers=1), ('math',)) as pool:
    yield pool


def _row(codec, prompt, text, sample=0, reward=1.0):
  tokens = (*codec.encode(text, follows=True), codec.eos[0])
  completion = Completion(text, tokens, (), 'token')
  return Graded('0', sample, prompt, completion, Verdict(reward, '', 'math-1'))


@pytest.mark.parametrize(('prompt', 'text', 'answer'), CASES)
def test_what_stands_behind_the_thoughts_is_the_answer(
  codec, prompt, text, answer
):
  row = _row(codec, prompt, text)
  assert row.answer == (answer or '')
  assert row.finished == (answer is not None)
  assert (answer_start(prompt, text) < 0) == (answer is None)


@pytest.mark.parametrize(('prompt', 'text', 'answer'), CASES)
def test_the_page_has_thoughts_apart(codec, prompt, text, answer):
  *_, finished, thoughts, said = _line(_row(codec, prompt, text))
  assert thoughts + said == text
  assert said == (answer or '')
  assert finished == (answer is not None)


def test_a_sample_that_never_ends_its_thoughts_is_unfinished(codec):
  rows = [_row(codec, OPENED, '#### 5'), _row(codec, OPENED, THOUGHT, 1)]
  choices = choose(rows, EStepConfig())
  assert [choice.fate for choice in choices] == [UNFINISHED, 'kept']
  tally = Tally()
  tally.add(choices)
  assert tally.summary().ended == {'token': 1, 'stop': 0, 'limit': 1}


def test_what_is_drafted_in_thoughts_has_no_vote(codec, pool):
  drafts = [_row(codec, OPENED, '#### 4', i, 0.0) for i in range(3)]
  rows = [*drafts, *(_row(codec, OPENED, THOUGHT, i) for i in (3, 4))]
  # With their drafts, the three would outvote the two.
  assert vote(rows, pool) == 1.0


@pytest.mark.parametrize(
  ('prompt', 'text', 'learnt'),
  [
    (ASKED, f'<think>\n{THOUGHT}', '#### 5'),
    # What the template has opened is closed.
    (OPENED, THOUGHT, '</think>\n\n#### 5'),
    (ASKED, ' #### 5', ' #### 5'),
  ],
)
def test_thoughts_are_trained_on_or_cut(
  prompt, text, learnt, codec, pool, tmp_path
):
  for thoughts, expected in (('keep', text), ('cut', learnt)):
    folder = tmp_path / thoughts
    folder.mkdir()
    rows = [_row(codec, prompt, text)]
    config = EStepConfig(thoughts=thoughts)
    make_dataset([(0, rows)], codec, config, folder, 0.0, pool)
    (kept,) = dataset.read_dataset(folder / 'dataset.jsonl')
    assert kept.text == expected
    assert codec.decode(kept.tokens, follows=True) == f'{expected}</s>'


def test_answers_that_differ_in_their_thoughts_are_one_where_they_are_cut(
  codec,
):
  rows = [_row(codec, OPENED, f'{i}{THOUGHT}', i) for i in range(3)]
  for thoughts, count in (('keep', 3), ('cut', 1)):
    choices = choose(rows, EStepConfig(thoughts=thoughts))
    assert sum(choice.kept for choice in choices) == count


class Script:
  """Says what it is told to."""

  def __init__(self, codec, texts):
    self.stats = Stats()
    self._tokens = [_row(codec, '', text).completion.tokens for text in texts]

  def draw(self, prefix, asks, **unused):
    for sample, tokens in enumerate(self._tokens):
      tokens_T = np.array(tokens)
      yield [Sampled(0, sample, tokens_T, tokens_T * 0.0)]


class Opened(Arithmetic):
  """Asked so that the thoughts have begun."""

  def question(self, problem):
    return OPENED


def test_thoughts_are_not_judged(codec):
  task = Opened(tasks.TaskConfig('arithmetic', num_train=1))
  (problem,) = task.problems('train')
  right = f'#### {problem.answer}'
  texts = [f'no</think>{right}', right, f'{right}</think>#### no', 'a</think>b']
  with Graders(VerifyConfig(workers=1), ('math',), codec) as graders:
    tools = Tools(
      Script(codec, texts),  # pyright: ignore[reportArgumentType]
      sharding.make_mesh(MeshConfig(), jax.devices()[:1]),
      graders,
      task,
      codec,
      lambda: False,
    )
    ((_, rows),) = draw(tools, [problem], [0], 4, Timing(), '', '')
  assert [row.verdict.reward for row in rows] == [1.0, 0.0, 0.0, 0.0]
  assert [row.completion.text for row in rows] == texts
