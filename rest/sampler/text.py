"""From drawn tokens to a completion: end tokens, stop strings, text."""

from rest.sampler.order import Draft
from rest.types import Completion, Tokenizer


def has_stop(
  draft: Draft, new: int, tokenizer: Tokenizer, stop: tuple[str, ...]
) -> bool:
  """Whether a stop string is in the text that the last `new` tokens touch."""
  if not stop:
    return False
  # A token has at least one character, or belongs to one of a few bytes.
  reach = new + max(len(text) for text in stop) + 4
  tail = tokenizer.decode(draft.tokens[-reach:], follows=True)
  return any(text in tail for text in stop)


def complete(
  draft: Draft, tokenizer: Tokenizer, stop: tuple[str, ...]
) -> Completion:
  """Returns the completion that a draft has come to.

  Where the text holds a stop string, the completion is what lies before: the
  tokens wholly before it, then the end token that we train on, whose
  log-probability is that of the token drawn in its place. So the result is the
  same however many tokens were drawn past the stop.
  """
  tokens = draft.tokens
  finished = tokens[-1] in tokenizer.eos
  text = tokenizer.decode(tokens[:-1] if finished else tokens, follows=True)
  cut = min((at for s in stop if (at := text.find(s)) >= 0), default=-1)
  if cut < 0:
    return Completion(text, tuple(tokens), tuple(draft.logprobs), finished)
  text = text[:cut]
  count = len(tokens) - 1
  while count and not text.startswith(
    tokenizer.decode(tokens[:count], follows=True)
  ):
    count -= 1
  return Completion(
    text,
    (*tokens[:count], tokenizer.eos[0]),
    tuple(draft.logprobs[: count + 1]),
    True,
  )
