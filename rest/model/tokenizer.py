"""Text to ids and back: Hugging Face tokenizer.json, or SentencePiece models.

Ids are those of the reference libraries. Some models (Llama 2, Mistral) put a
space in front of every text they encode and take it away when they decode, so
that texts joined as ids would gain spaces, and the indentation of a completion
would lose one. A text that goes on a sequence, rather than starts it, is
therefore encoded and decoded with `follows=True`, without that space:

  decode(encode(a) + encode(b, follows=True)) == a + b

Models that put no space (Llama 3, Qwen, Gemma) give the same either way.
"""

import itertools
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import sentencepiece
import tokenizers
from etils import epath

from rest.types import Tokenizer

_FILES = (
  'tokenizer_config.json',
  'special_tokens_map.json',
  'generation_config.json',
  'config.json',
)
_ADDED = 'added_tokens.json'

# Appended to a serialized ModelProto this sets normalizer_spec (field 3)
# .add_dummy_prefix (field 3) to false: protobuf merges concatenated messages.
_NO_DUMMY_PREFIX = b'\x1a\x02\x18\x00'


def load(path: str, turn_end: str = '') -> Tokenizer:
  """Returns the tokenizer of a checkpoint directory; it is thread-safe.

  It reads tokenizer.json, else tokenizer.model. Special tokens written in a
  text become their ids with the former, and stay text with the latter, as in
  the libraries. `eos` holds what tokenizer_config.json, generation_config.json
  and config.json name, in this order; a name may stand in the vocabulary, or
  only among the added tokens of tokenizer_config.json or added_tokens.json.
  `bos` is what the libraries put before a text: with tokenizer.json its
  post-processor says so, with tokenizer.model `add_bos_token`.

  Args:
    path: The directory.
    turn_end: A special token that ends completions before all others: that
      which ends a turn of a chat.

  Raises:
    FileNotFoundError: There is no such directory, or no tokenizer in it.
    ValueError: A file is damaged, no end token is named, or one that is named
      stands nowhere.
  """
  folder = epath.Path(path)
  if not folder.is_dir():
    raise FileNotFoundError(f'There is no tokenizer directory {path}.')
  settings = {name: _read_json(folder / name) for name in (*_FILES, _ADDED)}
  codecs = _open(folder, settings)
  names = _Names(path, settings, codecs[0])
  eos = names.ids('eos')
  if not eos:
    raise ValueError(
      f'{path} names no end token: expected eos_token in '
      'tokenizer_config.json or eos_token_id in config.json.'
    )
  if turn_end:
    eos = tuple(
      dict.fromkeys((names.find(turn_end, 'The end of a turn'), *eos))
    )
  bos = codecs[0].special('bos')
  if bos and isinstance(codecs[0], _SentencePiece):
    bos = names.ids('bos')  # The one of the settings, if they name one.
  pad = names.ids('pad')
  return _Loaded(
    vocab_size=max(
      [codecs[0].vocab_size, *(i + 1 for i in names.added.values())]
    ),
    bos=bos[0] if bos else None,
    eos=eos,
    pad=pad[0] if pad else eos[0],
    added={i: text for text, i in names.added.items()},
    starts=codecs[0],
    goes_on=codecs[1],
  )


def check_ids(ids: Collection[int], vocab: int, what: str) -> None:
  """Refuses ids that a model has no embedding for.

  On a device, what is read outside of an array is clamped or NaN, in silence.

  Args:
    ids: Any.
    vocab: Rows of the embedding.
    what: Names them in the error.

  Raises:
    ValueError: An id is not in [0, vocab).
  """
  ids = tuple(ids)  # Where they lie on disk, they are read once.
  low, high = min(ids, default=0), max(ids, default=0)
  if low < 0 or high >= vocab:
    raise ValueError(
      f'{what}: id {high if high >= vocab else low} is not in the vocabulary '
      f'of the model, which has {vocab} rows (vocab_size in config.json): the '
      'tokenizer files are not those of the model.'
    )


class _Codec(Protocol):
  """What the two libraries have in common."""

  vocab_size: int

  # Ids that `decode` writes out: all but those that need words of their own.
  plain: frozenset[int]

  def encode(self, text: str) -> list[int]: ...

  def decode(self, tokens: Sequence[int]) -> str: ...

  def name_of(self, token: int) -> str | None:
    """Returns how an id that is not plain is written; None if it is no id."""
    ...

  def id_of(self, token: str) -> int | None: ...

  def special(self, name: str) -> list[int]:
    """Returns the model's own 'bos' (if prompts get it), 'eos' or 'pad'."""
    ...


@dataclass(slots=True, eq=False)
class _Loaded:
  """A `rest.types.Tokenizer`."""

  vocab_size: int
  bos: int | None
  eos: tuple[int, ...]
  pad: int
  added: dict[int, str]  # Texts of ids that a codec may not know.
  starts: _Codec
  goes_on: _Codec

  def encode(self, text: str, follows: bool = False) -> list[int]:
    return (self.goes_on if follows else self.starts).encode(text)

  def decode(self, tokens: Sequence[int], follows: bool = False) -> str:
    codec = self.goes_on if follows else self.starts
    if codec.plain.issuperset(tokens):
      return codec.decode(tokens)
    texts: list[str] = []
    for is_plain, run in itertools.groupby(tokens, codec.plain.__contains__):
      if is_plain:
        texts.append(codec.decode([*run]))
      else:
        names = (codec.name_of(i) or self.added.get(i, '\ufffd') for i in run)
        texts += names
      codec = self.goes_on  # Only the first of a text may lose a space.
    return ''.join(texts)


class _SentencePiece:
  """A tokenizer.model."""

  def __init__(self, model: bytes, begins: bool):
    try:
      self._model = sentencepiece.SentencePieceProcessor(model_proto=model)
    except RuntimeError as error:
      raise ValueError(f'tokenizer.model is damaged: {error}') from error
    self._begins = begins
    self.vocab_size = self._model.vocab_size()
    # The library writes control tokens, such as <s>, as nothing.
    self.plain = frozenset(
      i for i in range(self.vocab_size) if not self._model.is_control(i)
    )

  def encode(self, text: str) -> list[int]:
    return self._model.encode(text)

  def decode(self, tokens: Sequence[int]) -> str:
    return self._model.decode([*tokens])

  def name_of(self, token: int) -> str | None:
    # Models draw from a padded vocabulary: ids past the last piece are nothing.
    inside = 0 <= token < self.vocab_size
    return self._model.id_to_piece(token) if inside else None

  def id_of(self, token: str) -> int | None:
    found = self._model.piece_to_id(token)
    return found if self._model.id_to_piece(found) == token else None

  def special(self, name: str) -> list[int]:
    found = getattr(self._model, f'{name}_id')()
    wanted = name != 'bos' or self._begins
    return [found] if found >= 0 and wanted else []


class _Fast:
  """A tokenizer.json."""

  def __init__(self, raw: dict[str, Any]):
    try:
      self._model = tokenizers.Tokenizer.from_str(json.dumps(raw))
    except Exception as error:  # The library raises nothing narrower.
      raise ValueError(f'tokenizer.json is damaged: {error}') from error
    self._model.no_padding()
    self._model.no_truncation()
    self.plain = frozenset(self._model.get_vocab().values())
    self.vocab_size = max(self.plain) + 1

  def encode(self, text: str) -> list[int]:
    return self._model.encode(text, add_special_tokens=False).ids

  def decode(self, tokens: Sequence[int]) -> str:
    return self._model.decode(list(tokens), skip_special_tokens=False)

  def name_of(self, token: int) -> str | None:
    return None  # All that has a name is plain.

  def id_of(self, token: str) -> int | None:
    return self._model.token_to_id(token)

  def special(self, name: str) -> list[int]:
    if name != 'bos':
      return []  # Only the settings say.
    inside, whole = self.encode('a'), self._model.encode('a').ids
    return whole[:1] if whole[:1] != inside[:1] else []


def _open(
  folder: epath.Path, settings: dict[str, dict[str, Any]]
) -> tuple[_Codec, _Codec]:
  """Returns a codec for what starts a text, and one for what goes on it."""
  if (folder / 'tokenizer.json').exists():
    raw = _read_json(folder / 'tokenizer.json')
    starts, stripped = _Fast(raw), _without_prefix(raw)
    # Most are the same, and take seconds to read.
    return starts, starts if stripped == raw else _Fast(stripped)
  if (folder / 'tokenizer.model').exists():
    model = (folder / 'tokenizer.model').read_bytes()
    begins = settings['tokenizer_config.json'].get('add_bos_token', True)
    return (
      _SentencePiece(model, begins),
      _SentencePiece(model + _NO_DUMMY_PREFIX, begins),
    )
  raise FileNotFoundError(
    f'{folder} holds neither tokenizer.json nor tokenizer.model.'
  )


class _Names:
  """Finds the ids of the special tokens that the files of a folder name.

  Attributes:
    added: Ids of tokens that the files add, by their text.
  """

  def __init__(
    self, path: str, settings: dict[str, dict[str, Any]], codec: _Codec
  ):
    self._path = path
    self._settings = settings
    self._codec = codec
    listed = settings['tokenizer_config.json'].get('added_tokens_decoder', {})
    decoder = {token['content']: int(i) for i, token in listed.items()}
    self.added: dict[str, int] = settings[_ADDED] | decoder

  def ids(self, name: str) -> tuple[int, ...]:
    """Returns all that the files, or else the model, name, without repeats.

    Args:
      name: 'eos', 'bos' or 'pad'.

    Raises:
      ValueError: A name stands nowhere, or an id is none.
    """
    found: list[int] = []
    for file in _FILES:
      token = self._settings[file].get(f'{name}_token')
      if token:
        found.append(self.find(token, f'{self._path}/{file}: {name}_token'))
      ids = self._settings[file].get(f'{name}_token_id')
      ids = ids if isinstance(ids, list) else [ids]
      for i in ids:
        if i is not None and (not isinstance(i, int) or isinstance(i, bool)):
          raise ValueError(
            f'{self._path}/{file}: {name}_token_id must be a whole number or a '
            f'list of them; got {i!r}.'
          )
      found += [i for i in ids if i is not None and i >= 0]  # -1 is none.
    return tuple(dict.fromkeys(found or self._codec.special(name)))

  def find(self, token: Any, where: str) -> int:
    """Returns the id of a token that is written, or raises."""
    text = token if isinstance(token, str) else token['content']
    found = self._codec.id_of(text)
    found = self.added.get(text) if found is None else found
    if found is None:
      raise ValueError(
        f'{where} is {text!r}, which is neither in the vocabulary nor among '
        'added_tokens_decoder of tokenizer_config.json or in added_tokens.json.'
      )
    return found


def _without_prefix(raw: dict[str, Any]) -> dict[str, Any]:
  """Returns a tokenizer.json that neither puts nor strips a leading space."""
  parts = {'normalizer', 'pre_tokenizer', 'decoder'}.intersection(raw)
  if (raw.get('decoder') or {}).get('type') == 'ByteLevel':
    parts.remove('decoder')  # It strips nothing, whatever it is told.
  return raw | {part: _strip_prefix(raw[part]) for part in parts}


def _strip_prefix(part: Any) -> Any:
  if isinstance(part, list):
    kept = [_strip_prefix(member) for member in part]
    return [member for member in kept if member is not None]
  if not isinstance(part, dict):
    return part
  if part.get('type') in ('Prepend', 'Strip') and part.get('start', 1):
    return None
  part = {key: _strip_prefix(value) for key, value in part.items()}
  if part.get('type') == 'Metaspace':
    part['prepend_scheme'] = 'never'
    part.pop('add_prefix_space', None)
  elif part.get('type') == 'ByteLevel':
    part['add_prefix_space'] = False
  return part


def _read_json(file: epath.Path) -> dict[str, Any]:
  if not file.exists():
    return {}
  try:
    return json.loads(file.read_text())
  except ValueError as error:
    raise ValueError(f'{file} is not JSON: {error}.') from error
