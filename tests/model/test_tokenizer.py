"""Ids equal the reference libraries'; texts survive being split and joined."""

import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import sentencepiece
import tokenizers
from vocabularies import (
  EXACT,
  JSON,
  SENTENCEPIECE,
  SPECIAL,
  STARTS,
  TEXTS,
  byte_level,
  write_json,
  write_sentencepiece,
)

from rest.model import tokenizer


@pytest.mark.parametrize('name', SENTENCEPIECE)
def test_ids_equal_sentencepiece(name, tmp_path):
  path = write_sentencepiece(tmp_path / 'tokenizer', **SENTENCEPIECE[name])
  reference = sentencepiece.SentencePieceProcessor(
    model_file=str(path / 'tokenizer.model')
  )
  ours = tokenizer.load(str(path))
  assert ours.vocab_size == reference.vocab_size()
  assert (ours.bos, ours.eos, ours.pad) == (1, (2,), 2)
  for text in TEXTS:
    assert ours.encode(text) == reference.encode(text)
    assert ours.decode(ours.encode(text)) == reference.decode(
      reference.encode(text)
    )


LLAMA = {'tokenizer_class': 'LlamaTokenizer', 'legacy': False}


@pytest.mark.parametrize(
  ('name', 'settings'), [('llama2', SPECIAL | LLAMA), ('gemma', SPECIAL)]
)
def test_ids_of_sentencepiece_models_equal_transformers(
  name, settings, tmp_path
):
  transformers = pytest.importorskip('transformers')
  path = write_sentencepiece(tmp_path / 'tokenizer', **SENTENCEPIECE[name])
  (path / 'tokenizer_config.json').write_text(json.dumps(settings))
  (path / 'config.json').write_text('{"model_type": "llama"}')
  reference = transformers.AutoTokenizer.from_pretrained(path)
  ours = tokenizer.load(str(path))
  assert ours.eos == (reference.eos_token_id,)
  for text in STARTS:
    ids = reference.encode(text, add_special_tokens=False)
    assert ours.encode(text) == ids


@pytest.mark.parametrize('name', JSON)
def test_ids_equal_transformers(name, tmp_path):
  transformers = pytest.importorskip('transformers')
  path = write_json(tmp_path / 'tokenizer', JSON[name]())
  reference = transformers.PreTrainedTokenizerFast.from_pretrained(path)
  ours = tokenizer.load(str(path))
  assert ours.vocab_size == max(reference.get_vocab().values()) + 1
  assert ours.eos == (reference.eos_token_id,)
  for text in [*TEXTS, 'specials <s> in</s> a text']:
    ids = reference.encode(text, add_special_tokens=False)
    assert ours.encode(text) == ids
    assert ours.decode(ids) == reference.decode(
      ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
    )


@pytest.fixture(scope='module', params=EXACT)
def exact(request, tmp_path_factory):
  """A tokenizer that loses nothing."""
  path = tmp_path_factory.mktemp('exact') / request.param
  return tokenizer.load(str(EXACT[request.param](path)))


def test_texts_survive(exact):
  for text in STARTS:
    assert exact.decode(exact.encode(text)) == text
  for text in TEXTS:
    ids = exact.encode(text, follows=True)
    assert exact.decode(ids, follows=True) == text


def test_texts_joined_as_ids_are_joined_as_texts(exact):
  for a in STARTS:
    for b in TEXTS:
      ids = exact.encode(a) + exact.encode(b, follows=True)
      assert exact.decode(ids) == a + b


def test_no_begin_or_end_is_put_around_a_text(exact):
  for text in TEXTS:
    ids = exact.encode(text)
    assert not {exact.bos, *exact.eos} & set(ids)


def test_no_token_is_hidden_in_a_text(exact):
  ids = exact.encode('a b', follows=True)
  whole = [*ids, *exact.eos, *ids, *exact.eos]
  assert exact.decode(whole, follows=True) == 'a b</s>a b</s>'


def test_any_ids_decode(exact):
  for text in '你好🙂', 'é':
    ids = exact.encode(text, follows=True)
    for cut in range(len(ids)):
      assert isinstance(exact.decode(ids[:cut]), str)
      assert isinstance(exact.decode(ids[cut:], follows=True), str)
  assert '\ufffd' in exact.decode(exact.encode('🙂')[:-1])
  every = list(range(exact.vocab_size + 100))  # Models pad their vocabulary.
  assert isinstance(exact.decode(every), str)
  assert exact.decode([exact.vocab_size + 50]) == '\ufffd'


def test_threads_may_share_a_tokenizer(exact):
  expected = [exact.encode(text) for text in STARTS]

  def work(_):
    found = [exact.encode(text) for text in STARTS]
    return found == expected and list(map(exact.decode, found)) == STARTS

  with ThreadPoolExecutor(8) as pool:
    assert all(pool.map(work, range(64)))


def test_end_tokens_of_all_files_count(tmp_path):
  model = byte_level(['<pad>', '<s>', '</s>', '<turn>', '<stop>'])
  path = write_json(
    tmp_path / 'tokenizer',
    model,
    tokenizer_config={'eos_token': {'content': '<turn>'}, 'bos_token': None},
    generation_config={'eos_token_id': [2, 4]},
    config={'eos_token_id': 2, 'pad_token_id': 0},
  )
  ours = tokenizer.load(str(path))
  assert (ours.bos, ours.eos, ours.pad) == (None, (3, 2, 4), 0)


@pytest.mark.parametrize('kind', ['byte_level', 'sentencepiece'])
@pytest.mark.parametrize('place', ['added_tokens_decoder', 'added_tokens'])
def test_end_tokens_that_only_a_list_of_added_tokens_has_count(
  kind, place, tmp_path
):
  transformers = pytest.importorskip('transformers')
  path = tmp_path / 'tokenizer'
  if kind == 'byte_level':
    write_json(path, byte_level())
  else:
    write_sentencepiece(path, **SENTENCEPIECE['llama2'])
  (path / 'tokenizer_config.json').write_text(json.dumps(SPECIAL))
  last = tokenizer.load(str(path)).vocab_size
  settings = SPECIAL | LLAMA if kind == 'sentencepiece' else SPECIAL
  settings = settings | {'eos_token': '<turn>'}
  if place == 'added_tokens':
    (path / 'added_tokens.json').write_text(json.dumps({'<turn>': last}))
  else:
    token = {'content': '<turn>', 'special': True}
    settings = settings | {'added_tokens_decoder': {str(last): token}}
  (path / 'tokenizer_config.json').write_text(json.dumps(settings))
  (path / 'config.json').write_text('{"model_type": "llama"}')
  ours = tokenizer.load(str(path))
  reference = transformers.AutoTokenizer.from_pretrained(path)
  assert ours.eos == (last,) == (reference.eos_token_id,)
  assert ours.vocab_size == last + 1
  ids = [*ours.encode('a b'), last]
  assert ours.decode(ids) == reference.decode(ids, skip_special_tokens=False)


@pytest.mark.parametrize('name', ['eos', 'pad'])
def test_a_special_token_that_stands_nowhere_is_refused(name, tmp_path):
  path = write_json(
    tmp_path / 'tokenizer',
    byte_level(),
    special_tokens_map={f'{name}_token': '<turn>'},
    config={'eos_token_id': 2},
  )
  with pytest.raises(
    ValueError, match=rf"special_tokens_map\.json: {name}_token is '<turn>'"
  ):
    tokenizer.load(str(path))


def test_ids_of_special_tokens_are_whole_numbers(tmp_path):
  path = write_json(
    tmp_path / 'tokenizer', byte_level(), config={'eos_token_id': [2, '3']}
  )
  with pytest.raises(ValueError, match=r"config\.json: eos_token_id .*'3'"):
    tokenizer.load(str(path))


def test_the_begin_token_of_a_sentencepiece_model_is_the_one_named(tmp_path):
  path = write_sentencepiece(tmp_path / 'tokenizer', **SENTENCEPIECE['gemma'])
  settings = SPECIAL | {'bos_token': '<start_of_turn>'}
  (path / 'tokenizer_config.json').write_text(json.dumps(settings))
  ours = tokenizer.load(str(path))
  assert ours.bos == ours.encode('<start_of_turn>')[-1]


@pytest.mark.parametrize('ids', [[3, 96], [-1, 3]])
def test_ids_outside_of_a_model_are_named(ids):
  tokenizer.check_ids([0, 95], 96, 'a prompt')
  with pytest.raises(ValueError, match=r'^a prompt: id (96|-1) .*96 rows'):
    tokenizer.check_ids(ids, 96, 'a prompt')


@pytest.mark.parametrize('begin', [True, False])
def test_begin_token_is_what_transformers_puts(begin, tmp_path):
  transformers = pytest.importorskip('transformers')
  model = byte_level()
  model.post_processor = tokenizers.processors.TemplateProcessing(
    '<s> $A </s>' if begin else '$A </s>',
    special_tokens=[('<s>', 0), ('</s>', 1)],
  )
  path = write_json(tmp_path / 'tokenizer', model)
  reference = transformers.PreTrainedTokenizerFast.from_pretrained(path)
  ours = tokenizer.load(str(path))
  assert ours.bos == (0 if begin else None)
  start = [ours.bos] if begin else []
  assert reference.encode('a b') == [*start, *ours.encode('a b'), ours.eos[0]]


def test_settings_of_a_sentencepiece_model_are_read(tmp_path):
  path = write_sentencepiece(tmp_path / 'tokenizer', pad_id=3)
  assert tokenizer.load(str(path)).pad == 3
  config = {'add_bos_token': False, 'eos_token': '</s>', 'pad_token': '<unk>'}
  (path / 'tokenizer_config.json').write_text(json.dumps(config))
  (path / 'config.json').write_text('{"eos_token_id": [2, 7]}')
  ours = tokenizer.load(str(path))
  assert (ours.bos, ours.eos, ours.pad) == (None, (2, 7), 0)


def test_bad_tokenizers_are_named(tmp_path):
  with pytest.raises(FileNotFoundError, match='nowhere'):
    tokenizer.load(str(tmp_path / 'nowhere'))
  with pytest.raises(FileNotFoundError, match=r'neither tokenizer\.json'):
    tokenizer.load(str(tmp_path))
  (tmp_path / 'tokenizer.model').write_bytes(b'\x0a\xffnot a model')
  with pytest.raises(ValueError, match=r'tokenizer\.model'):
    tokenizer.load(str(tmp_path))
  (tmp_path / 'tokenizer.json').write_text('{"model": {"type": "None"}}')
  with pytest.raises(ValueError, match=r'tokenizer\.json'):
    tokenizer.load(str(tmp_path))
  (tmp_path / 'tokenizer.json').write_text('{"model": ')
  with pytest.raises(ValueError, match=r'tokenizer\.json is not JSON'):
    tokenizer.load(str(tmp_path))
  byte_level().save(str(tmp_path / 'tokenizer.json'))
  with pytest.raises(ValueError, match='no end token'):
    tokenizer.load(str(tmp_path))


def test_the_tokenizer_brings_no_jax():
  names = 'import sys, rest.model.tokenizer; print(sorted(sys.modules))'
  out = subprocess.run(
    [sys.executable, '-c', names], capture_output=True, text=True, check=True
  ).stdout
  assert not re.findall(r"'(?:jax|flax|tensorflow|torch|transformers)'", out)
