"""Datasets on disk: what an M-step trains on, and a check of what it says."""

import json
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from etils import epath

from rest.run import store
from rest.types import Kept, Tokenizer


def write_dataset(
  path: epath.PathLike, rows: Iterable[Kept], tokenizer: Tokenizer
) -> None:
  """Writes the immutable dataset of an iteration; rows are read one by one.

  Raises:
    ValueError: The tokens of a row do not say what its text says: see `check`.
      Nothing is written.
  """
  store.write_whole(path, map(_line, _checked(rows, tokenizer, path)))


def read_dataset(path: epath.PathLike) -> list[Kept]:
  """Reads the dataset of an iteration."""
  rows = []
  for line in epath.Path(path).read_text().split('\n'):
    if line:
      fields = json.loads(line)
      rows.append(
        Kept(
          problem_id=fields['problem'],
          sample=fields['sample'],
          prompt=fields['prompt'],
          text=fields['text'],
          tokens=tuple(fields['tokens']),
          weight=fields['weight'],
          hinted=fields['hinted'],
        )
      )
  return rows


def check(
  rows: Iterable[Kept], tokenizer: Tokenizer, path: epath.PathLike
) -> None:
  """Refuses rows whose tokens do not decode to the text that was judged.

  Training sees the tokens, the verifier has seen the text. Where they part, a
  model is taught what nobody has judged: to leave out closing brackets, say.

  Raises:
    ValueError: Names the dataset, the first such row, and both its texts.
  """
  deque(_checked(rows, tokenizer, path), maxlen=0)


def _checked(
  rows: Iterable[Kept], tokenizer: Tokenizer, path: epath.PathLike
) -> Iterator[Kept]:
  for row in rows:
    if not says(tokenizer, row.tokens, row.text):
      decoded = tokenizer.decode(row.tokens, follows=True)
      raise ValueError(
        f'{path}: problem {row.problem_id!r}, sample {row.sample}: its tokens '
        f'say {_end(decoded)}, but what was judged is {_end(row.text)}. '
        'Samples of another tokenizer, or of an older version, can be used '
        "with em.source='samples_of': there they are encoded anew."
      )
    yield row


def says(tokenizer: Tokenizer, tokens: Sequence[int], text: str) -> bool:
  """Whether the tokens of a completion, less its end token, are its text."""
  if tokens and tokens[-1] in tokenizer.eos:
    tokens = tokens[:-1]
  return tokenizer.decode(tokens, follows=True) == text


def _end(text: str) -> str:
  return f'...{text[-60:]!r}' if len(text) > 60 else repr(text)


def _line(row: Kept) -> str:
  fields = {
    'problem': row.problem_id,
    'sample': row.sample,
    'prompt': row.prompt,
    'text': row.text,
    'tokens': list(row.tokens),
    'weight': row.weight,
    'hinted': row.hinted,
  }
  return json.dumps(fields, ensure_ascii=False) + '\n'
