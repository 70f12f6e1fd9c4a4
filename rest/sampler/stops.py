"""Stop strings in what was just drawn, found without decoding all of it."""

import numpy as np
from numpy.typing import NDArray

from rest.sampler.order import Draft, Track
from rest.types import Tokenizer

_UNKNOWN = 2  # Of a token that was not looked at yet.


class Stops:
  """Finds stop strings.

  Invariant: a stop string is whole with one token, its last. That token's own
  text holds the whole string, or begins with an end of it, or is a part of a
  letter; few tokens do, and only where one of them was drawn is text looked at.

  Example: of the stop string '\\n\\nQ:', the tokens ':', 'Q:' and ':\\n' are
  such; ' so:' is none.
  """

  def __init__(self, tokenizer: Tokenizer, stop: tuple[str, ...], vocab: int):
    """Looks at no token yet.

    Args:
      tokenizer: Of the model.
      stop: Texts that end a completion.
      vocab: Tokens that the model can draw, V.
    """
    self._tokenizer = tokenizer
    self._stop = stop
    self._ends_V = np.full(vocab, _UNKNOWN if stop else 0, np.uint8)
    # A token stands for a byte at least.
    self._reach = max((len(text.encode()) for text in stop), default=0)

  def may_end(self, token_TB: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Returns which tokens may be the last one of a stop string."""
    found_TB = self._ends_V[token_TB]
    if (found_TB == _UNKNOWN).any():
      for token in np.unique(token_TB[found_TB == _UNKNOWN]).tolist():
        self._ends_V[token] = self._ends(token)
      found_TB = self._ends_V[token_TB]
    return found_TB == 1

  def has_stop(self, draft: Draft, track: Track, stop: int, new: int) -> bool:
    """Whether a stop string is in the text that a draft's last tokens touch.

    Args:
      draft: Of which more was drawn.
      track: Of the table where it was.
      stop: The step behind the last.
      new: How many tokens are new.
    """
    return self.ends(draft.drawn(track, stop, new + self._reach)[0], new)

  def ends(self, tokens_T: NDArray[np.int32], new: int = 1) -> bool:
    """Whether a stop string is in the text that the last tokens touch.

    Args:
      tokens_T: Of a completion, at least its last ones.
      new: How many tokens are new.
    """
    if not self._stop:
      return False
    last = tokens_T[-new - self._reach :].tolist()
    tail = self._tokenizer.decode(last, follows=True)
    return any(text in tail for text in self._stop)

  def _ends(self, token: int) -> bool:
    text = self._tokenizer.decode([token], follows=True)
    return '\ufffd' in text or any(
      stop in text or any(text.startswith(stop[i:]) for i in range(len(stop)))
      for stop in self._stop
    )
