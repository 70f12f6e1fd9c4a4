"""From drawn tokens to a completion: end tokens, stop strings, text."""

from collections.abc import Sequence

from rest.types import Completion, Tokenizer


def complete(
  tokens: Sequence[int],
  logprobs: Sequence[float],
  tokenizer: Tokenizer,
  stop: tuple[str, ...],
) -> Completion:
  r"""Returns the completion that drawn tokens have come to.

  Where the text holds a stop string, the completion is what lies before it, and
  the end token that we train on. A byte-level vocabulary has tokens such as
  `)\n`, in which a stop string begins: what of the text they held is encoded
  anew. The result is the same however many tokens were drawn past the stop.

  Example: of `f`, `(x`, `)\n`, `assert`, with the stop string `\nassert`, come
  the text `f(x)`, the tokens `f`, `(x`, `)`, end, and two log-probabilities.

  Args:
    tokens: As drawn; the last one may be an end token.
    logprobs: Theirs; may be empty, where nobody asks for them.
    tokenizer: Of the model.
    stop: Texts that end a completion.
  """
  ended = 'token' if tokens[-1] in tokenizer.eos else 'limit'
  drawn = tokens[:-1] if ended == 'token' else tokens
  text = tokenizer.decode(drawn, follows=True)
  cut = _first_stop(text, stop)
  if cut is None:
    return Completion(text, tuple(tokens), tuple(logprobs), ended)
  text = text[:cut]
  count, before = len(drawn), ''
  while count and not text.startswith(
    before := tokenizer.decode(drawn[:count], follows=True)
  ):
    count -= 1
  rest = text[len(before) :] if count else text
  tokens = [*drawn[:count], *tokenizer.encode(rest, follows=True)]
  return Completion(
    # Some encoders normalize: then this is not quite what was drawn, but it is
    # what is judged, and what is trained on.
    tokenizer.decode(tokens, follows=True),
    (*tokens, tokenizer.eos[0]),
    tuple(logprobs[:count]),
    'stop',
  )


def _first_stop(text: str, stop: tuple[str, ...]) -> int | None:
  """Returns where the stop string begins that is whole first.

  Not the one that begins first: a longer one that begins before it may still be
  unfinished when the shorter is whole, and would then count or not by how many
  tokens were drawn past it.
  """
  found = [(at + len(s), at) for s in stop if (at := text.find(s)) >= 0]
  return min(found)[1] if found else None
