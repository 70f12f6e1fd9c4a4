"""What is judged is what is stored, and what is trained on."""

import pathlib
import random
import unicodedata
from dataclasses import replace

import numpy as np
import pytest
import vocabularies
from letters import Letters

from rest import tasks
from rest.config import EStepConfig
from rest.e_step.choose import choose, to_kept
from rest.e_step.draw import prompt_tokens
from rest.model import tokenizer
from rest.model.completion import complete
from rest.run import dataset
from rest.run.dataset import read_dataset, says, to_lines
from rest.sampler.order import Draft, Track
from rest.sampler.stops import Stops
from rest.types import Completion, Graded, Kept, Tokenizer, Verdict

DATA = pathlib.Path(__file__).parents[1] / 'data/tasks'
# Code and prose in which stop strings begin inside a token.
CORPUS = [
  'def f(x):\n  return g(x[0])\n\nassert f([1, 2]) == "a"\n\nprint(f("b"))\n',
  'She has 3 * (4 + 5) = 27.\n#### 27\n\nQuestion: How many?\nAnswer: ',
  'x = {"a": [1]}\n\n\ndef test():\n  assert x["a"] == [1]\n[DONE]\n\nYou are',
]
ENDS = ['\n\n', '\nassert', '\n\nQuestion:', '[DONE]', '\n', 'Q', '🙂', 'é']


def _byte_level(path: pathlib.Path) -> pathlib.Path:
  """A byte-level vocabulary with tokens such as `)\\n` and `])\\n\\n`."""
  import tokenizers

  model = tokenizers.Tokenizer(tokenizers.models.BPE())
  split = tokenizers.pre_tokenizers
  model.pre_tokenizer = split.Sequence(
    [
      split.Split(
        tokenizers.Regex(r' ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+'),
        'isolated',
      ),
      split.ByteLevel(False, use_regex=False),
    ]
  )
  model.normalizer = tokenizers.normalizers.NFC()  # As Qwen's.
  model.decoder = tokenizers.decoders.ByteLevel()
  special = ['<s>', '</s>', '<|im_start|>']
  trainer = tokenizers.trainers.BpeTrainer(
    vocab_size=500,
    special_tokens=special,
    initial_alphabet=split.ByteLevel.alphabet(),
  )
  model.train_from_iterator(CORPUS * 20, trainer)
  assert any(')Ċ' in token for token in model.get_vocab())
  return vocabularies.write_json(path, model)


@pytest.fixture(
  scope='module',
  params=['byte_level', 'sentencepiece_gemma', 'sentencepiece_llama2'],
)
def codec(request, tmp_path_factory) -> Tokenizer:
  path = tmp_path_factory.mktemp('vocabulary') / request.param
  make = {**vocabularies.EXACT, 'byte_level': _byte_level}[request.param]
  return tokenizer.load(str(make(path)))


def _logprobs(tokens: list[int]) -> list[float]:
  return [-1.0 - i for i in range(len(tokens))]


def _has_stop(
  codec: Tokenizer, tokens: list[int], new: int, stop: tuple[str, ...]
) -> bool:
  """Whether the host sees a stop when the last `new` tokens come in."""
  stops, draft = Stops(codec, stop, codec.vocab_size + 20), Draft(0, 0, 0)
  token_TB, count = np.int32(tokens)[:, None], len(tokens)
  track = Track(rows=1, limit=count)
  track.file(token_TB, np.zeros_like(token_TB, np.float32))
  track.begin(draft, 0)
  may_end_TB = stops.may_end(token_TB[-new:])
  return bool(may_end_TB.any()) and stops.has_stop(draft, track, count, new)


def _check(codec: Tokenizer, tokens: list[int], stop: tuple[str, ...]):
  """Completes a draft, and checks the invariant and what is new in it."""
  done = complete(tokens, _logprobs(tokens), codec, stop)
  assert says(codec, done.tokens, done.text)
  assert done.finished == (done.tokens[-1] in codec.eos)
  drawn = done.tokens[: len(done.logprobs)]
  assert drawn == tuple(tokens[: len(drawn)])
  assert done.logprobs == tuple(_logprobs(tokens)[: len(drawn)])
  if done.ended != 'stop':
    assert done.tokens == tuple(tokens)
    return done
  text = codec.decode(tokens, follows=True)
  if unicodedata.is_normalized('NFC', text) and '\ufffd' not in text:
    assert done.text == _before_stop(text, stop)  # To the last letter.
  more = codec.decode(tokens[: len(drawn) + 1], follows=True)
  assert more == done.text or not done.text.startswith(more)
  return done


def _before_stop(text: str, stop: tuple[str, ...]) -> str:
  """Returns what is before a stop string, read letter by letter."""
  for end in range(len(text) + 1):
    whole = [s for s in stop if text[:end].endswith(s)]
    if whole:
      return text[: end - max(map(len, whole))]
  raise AssertionError('There is no stop string.')


def test_tokens_say_the_text_whatever_is_drawn_and_wherever_it_is_cut(codec):
  rng = random.Random(0)
  cut = inside = 0
  for _ in range(1500):
    if rng.random() < 0.5:  # Any tokens: broken UTF-8, special ones, no ids.
      size = rng.randrange(1, 20)
      tokens = rng.choices(range(codec.vocab_size + 20), k=size)
    else:
      pieces = rng.choices([*CORPUS, *ENDS, 'e\u0301', '"a"]) ', 'ß'], k=4)
      text = ''.join(piece[: rng.randrange(1, 60)] for piece in pieces)
      tokens = codec.encode(text, follows=True)
    ends = [i for i, token in enumerate(tokens) if token in codec.eos]
    tokens = tokens[: ends[0] + 1] if ends else tokens  # As the device does.
    text = codec.decode(tokens, follows=True)
    stop = tuple(rng.sample(ENDS, rng.randrange(4)))
    if rng.random() < 0.5 and text:  # Or any part of the text itself.
      at = rng.randrange(len(text))
      stop += (text[at : at + rng.randrange(1, 5)],)
    done = _check(codec, tokens, stop)
    assert not any(s in done.text for s in stop)
    cut += done.ended == 'stop'
    inside += len(done.logprobs) < len(done.tokens) - 1
  assert cut > 300
  assert inside > 30  # Stop strings that begin inside a token.


def test_a_completion_does_not_depend_on_what_is_drawn_past_its_stop(codec):
  rng = random.Random(1)
  for _ in range(300):
    text = ''.join(rng.choices(['ab', 'a', 'b', 'ba)\n', '\n\n', 'é🙂'], k=12))
    stop = tuple(rng.sample(['ab', 'bab', 'a)\n', '\n\n', 'b', '🙂a'], 3))
    tokens = codec.encode(text, follows=True)
    seen = [
      complete(tokens[:count], (), codec, stop)
      for count in range(1, len(tokens) + 1)
      if _has_stop(codec, tokens[:count], 1, stop)
      or any(s in codec.decode(tokens[:count], follows=True) for s in stop)
    ]
    assert all(done == seen[0] for done in seen)


def test_the_host_sees_a_stop_in_the_tokens_that_are_new(codec):
  rng = random.Random(2)
  for _ in range(300):
    text = ''.join(rng.choices([*CORPUS, *ENDS], k=3))
    tokens = codec.encode(text[: rng.randrange(1, 200)], follows=True)
    stop = tuple(rng.sample(ENDS, 2))
    new = rng.randrange(1, 9)
    first = codec.decode(tokens[:-new], follows=True)
    whole = codec.decode(tokens, follows=True)
    if any(s in whole for s in stop) and not any(s in first for s in stop):
      assert _has_stop(codec, tokens, new, stop)


def test_special_tokens_and_ids_without_meaning_are_seen_by_the_judge(codec):
  tokens = codec.encode('12', follows=True)
  for extra in (codec.bos or 0, codec.vocab_size + 7):
    done = _check(codec, [*tokens, extra, *tokens, codec.eos[0]], ())
    assert done.text != '1212'
    assert done.text.startswith('12')
    assert done.text.endswith('12')


SETS = [
  *('gsm8k', 'math', 'mbpp', 'humaneval', 'bbh', 'apps', 'arithmetic'),
]


@pytest.mark.parametrize('name', SETS)
def test_human_solutions_end_where_a_base_model_goes_on(name, codec):
  path = '' if name == 'arithmetic' else str(DATA / name)
  split = 'word_sorting' if name == 'bbh' else ''
  config = tasks.TaskConfig(name, path, split=split, num_validation=1)
  task = tasks.make(config)
  problems = [p for split in tasks.SPLITS for p in task.problems(split)]
  assert problems
  for problem in problems[:8]:
    target = task.target(problem) if problem.solution is not None else '4'
    for more in (*task.stop, *(f'\n{s}' for s in task.stop)):
      text = f'{target}{more}{task.question(problems[0])}'
      done = _check(codec, codec.encode(text, follows=True), task.stop)
      assert done.ended == 'stop'
      assert done.text == codec.decode(
        codec.encode(done.text, follows=True), follows=True
      )
      assert text.startswith(done.text)
    prefix, question = prompt_tokens(task, codec, problem)
    prompt = [*prefix[0 if codec.bos is None else 1 :], *question]
    assert codec.decode(prompt) == task.prefix + task.question(problem)


def _graded(text: str, tokens: tuple[int, ...]) -> Graded:
  completion = Completion(text, tokens, (), 'stop')
  verdict = Verdict(1.0, 'equal', 'math-1')
  return Graded('a/1', 3, 'What is it?', completion, verdict)


def test_a_dataset_whose_tokens_say_something_else_is_refused(tmp_path):
  letters, path = Letters(), tmp_path / 'dataset.jsonl'
  right = to_kept(_graded('f(x)', (*letters.encode('f(x)'), 1)))
  wrong = to_kept(_graded('f(x)', (*letters.encode('f(x'), 1)))
  with pytest.raises(ValueError, match=r"'a/1', sample 3.*'f\(x<1>'.*'f\(x\)'"):
    to_lines([right, wrong], letters, path)
  path.write_text(to_lines([right], letters, path))
  assert [*read_dataset(path)] == [right]
  with pytest.raises(ValueError, match='sample 3'):
    dataset.check([wrong], letters, path)


def test_datasets_hold_nothing_that_rounding_could_change(tmp_path):
  path = tmp_path / 'dataset.jsonl'

  def kept(row: Graded) -> list[Kept]:
    return [to_kept(c.row, c.weight) for c in choose([row], EStepConfig())]

  row = _graded('ab', (65, 66, 1))
  path.write_text(to_lines(kept(row), Letters(), path))
  other = Completion('ab', (65, 66, 1), (-0.5,), 'stop')
  assert kept(replace(row, completion=other)) == kept(row)
  assert 'logprob' not in path.read_text()
