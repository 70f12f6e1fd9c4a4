"""A tokenizer for tests: a letter a token."""

from collections.abc import Sequence


class Letters:
  """ASCII; 1 and 2 end a completion."""

  vocab_size = 96
  bos = None
  eos = (1, 2)
  pad = 0

  def encode(self, text: str, follows: bool = False) -> list[int]:
    del follows
    return [ord(letter) - 32 for letter in text]

  def decode(self, tokens: Sequence[int], follows: bool = False) -> str:
    del follows
    return ''.join(
      f'<{token}>' if token in self.eos else chr(token + 32) for token in tokens
    )
