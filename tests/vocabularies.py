"""Small vocabularies for tests, of the kinds that real models have."""

import json

import sentencepiece
import tokenizers

TEXTS = [
  'Weng earns $12 an hour. Yesterday, she did 50 minutes; how much?',
  '  two  spaces, and a tab\tand a line\nand two\n\nthen an end ',
  r'If $\frac{1}{2}x^2 + \sqrt{y} \leq \pi$, then \boxed{\left(3, 4\right]}.',
  'def f(x: int) -> list[str]:\n    """Doc."""\n    return [f"{x!r}"] * 2\n',
  'for (int i = 0; i < n; ++i) { a[i] ^= 0xFF; }  // `x` != y',
  'Überraschung: naïve café, Łódź, Привет, 你好世界, こんにちは, مرحبا.',
  'e\u0301 and \u00e9, \ufb01, Ⅷ, ½, 🙂👩‍👩‍👧, \u200b, \u3000, ∀x∈{Ω}.',
  '#### 72',
  '',
]

# The libraries differ in which texts that start with a space get another one.
STARTS = [text for text in TEXTS if text and text[0] != ' ']

SPECIAL = {'bos_token': '<s>', 'eos_token': '</s>', 'unk_token': '<unk>'}


def write_sentencepiece(path, **options):
  """Trains a tiny tokenizer.model."""
  path.mkdir()
  with (path / 'tokenizer.model').open('wb') as file:
    sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=iter(TEXTS[:5] * 20),  # Other scripts become bytes.
      model_writer=file,
      vocab_size=400,
      byte_fallback=True,
      hard_vocab_limit=False,
      minloglevel=2,
      **options,
    )
  return path


def write_json(path, model, **files):
  """Writes a tokenizer.json, and any other files by name."""
  path.mkdir()
  model.save(str(path / 'tokenizer.json'))
  for name, content in ({'tokenizer_config': SPECIAL} | files).items():
    (path / f'{name}.json').write_text(json.dumps(content))
  return path


def train(model, trainer, special):
  trainer = trainer(
    vocab_size=400,
    special_tokens=special,
    initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
  )
  model.train_from_iterator(TEXTS[:5] * 20, trainer)
  return model


def byte_level(special=('<s>', '</s>', '<unk>')):
  """A tokenizer of the kind of Llama 3 and Qwen."""
  model = tokenizers.Tokenizer(tokenizers.models.BPE())
  model.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
    [
      tokenizers.pre_tokenizers.Split(
        tokenizers.Regex(r"'s|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|\s+|[^\s]"),
        'isolated',
      ),
      tokenizers.pre_tokenizers.ByteLevel(False, use_regex=False),
    ]
  )
  model.decoder = tokenizers.decoders.ByteLevel()
  return train(model, tokenizers.trainers.BpeTrainer, list(special))


def metaspace(scheme):
  """A tokenizer of the kind of Llama 2 and Mistral."""
  vocab = {'<unk>': 0, '<s>': 1, '</s>': 2}
  vocab |= {f'<0x{byte:02X}>': byte + 3 for byte in range(256)}
  for text in ['▁', *sorted(set(''.join(TEXTS[:5]) + 'abc')), '▁▁', 'ur', '▁a']:
    vocab.setdefault(text, len(vocab))
  merges = [('▁', '▁'), ('u', 'r'), ('▁', 'a')]
  model = tokenizers.Tokenizer(
    tokenizers.models.BPE(
      vocab, merges, unk_token='<unk>', byte_fallback=True, fuse_unk=True
    )
  )
  d, n = tokenizers.decoders, tokenizers.normalizers
  if scheme == 'prepend':
    model.normalizer = n.Sequence([n.Prepend('▁'), n.Replace(' ', '▁')])
  else:
    model.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace(
      prepend_scheme=scheme, split=False
    )
  model.decoder = d.Sequence(
    [d.Replace('▁', ' '), d.ByteFallback(), d.Fuse(), d.Strip(' ', 1, 0)]
  )
  model.add_special_tokens(['<unk>', '<s>', '</s>'])
  return model


SENTENCEPIECE = {
  'defaults': {},
  'llama2': {
    'model_type': 'bpe',
    'split_digits': True,
    'normalization_rule_name': 'identity',
    'remove_extra_whitespaces': False,
    'allow_whitespace_only_pieces': True,
  },
  'gemma': {
    'normalization_rule_name': 'identity',
    'remove_extra_whitespaces': False,
    'add_dummy_prefix': False,
    'user_defined_symbols': ['<start_of_turn>', '\n\n'],
  },
}

JSON = {
  'byte_level': byte_level,
  'prepend': lambda: metaspace('prepend'),
  'first': lambda: metaspace('first'),
}

EXACT = {
  'sentencepiece_llama2': lambda path: write_sentencepiece(
    path, **SENTENCEPIECE['llama2']
  ),
  'sentencepiece_gemma': lambda path: write_sentencepiece(
    path, **SENTENCEPIECE['gemma']
  ),
} | {
  name: lambda path, make=make: write_json(path, make())
  for name, make in JSON.items()
}
