"""Datasets on disk: what an M-step trains on, and a check of what it says."""

import json
from collections.abc import Iterable, Iterator, Sequence

from etils import epath

from rest.types import Kept, Tokenizer


def to_lines(
  rows: Sequence[Kept], tokenizer: Tokenizer, path: epath.PathLike
) -> str:
  """Returns what the dataset of an iteration holds of some rows.

  Args:
    rows: Of a problem, or of all in order.
    tokenizer: Of the model that is to be trained.
    path: Of the dataset.

  Raises:
    ValueError: The tokens of a row do not say what its text says: see `check`.
  """
  check(rows, tokenizer, path)
  return ''.join(map(_line, rows))


def read_dataset(path: epath.PathLike) -> Iterator[Kept]:
  """Reads the dataset of an iteration, a row at a time."""
  with epath.Path(path).open('rb') as file:
    for line in file:
      fields = json.loads(line)
      yield Kept(
        problem_id=fields['problem'],
        sample=fields['sample'],
        prompt=fields['prompt'],
        text=fields['text'],
        tokens=tuple(fields['tokens']),
        weight=fields['weight'],
        hinted=fields['hinted'],
      )


def check(
  rows: Iterable[Kept], tokenizer: Tokenizer, path: epath.PathLike
) -> None:
  """Refuses rows whose tokens do not decode to the text that was judged.

  Training sees the tokens, the verifier has seen the text. Where they part, a
  model is taught what nobody has judged: to leave out closing brackets, say.

  Raises:
    ValueError: Names the dataset, the first such row, and both its texts.
  """
  for row in rows:
    if not says(tokenizer, row.tokens, row.text):
      decoded = tokenizer.decode(row.tokens, follows=True)
      raise ValueError(
        f'{path}: problem {row.problem_id!r}, sample {row.sample}: its tokens '
        f'say {_end(decoded)}, but what was judged is {_end(row.text)}. '
        'Samples of another tokenizer, or of an older version, can be used '
        "with em.source='samples_of': there they are encoded anew."
      )


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
