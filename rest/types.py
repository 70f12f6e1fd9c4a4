"""The nouns that every room speaks: problems, completions, verdicts, samples.

Axis letters in array names are those of `jax.nn.dot_product_attention`:

  B batch    T target positions    S source (cache) positions    D model width
  N query heads    K key/value heads    G query heads per key/value head
  H head width    F feed-forward width    V vocabulary    L layers
  Q prompt slots    R rows per prompt slot
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol


class Preempted(Exception):
  """The run was asked to stop; its work so far is saved, and can go on."""


class Halted(RuntimeError):
  """The run cannot go on until a person changes something; nothing is lost."""


@dataclass(frozen=True, slots=True)
class Tests:
  """How a program is judged. Nothing in it is ever shown to the program.

  Attributes:
    kind: 'assert': `script` is run against the program's names, and calls
      `check(entry_point)` at its end where an entry point is given. 'stdin':
      each input is the program's standard input. 'call': each input is a JSON
      list of arguments for `entry_point` (a function, or a method of
      `Solution`).
    script: The assertions, for 'assert'.
    entry_point: The function under test.
    preamble: Python whose names a program finds as if they were builtin, for
      'call'.
    inputs: One input a case, for 'stdin' (text) and 'call' (JSON).
    outputs: One expected output a case, aligned with `inputs`.
  """

  kind: Literal['assert', 'stdin', 'call']
  script: str = ''
  entry_point: str = ''
  preamble: str = ''
  inputs: tuple[str, ...] = ()
  outputs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Problem:
  """One problem of a problem set.

  Attributes:
    id: Unique within the task, stable across versions of this code.
    question: What the model is asked.
    answer: The reference answer, or None where only tests or nobody can judge.
    tests: How a program is judged, or None where `answer` judges.
    solution: A human solution, the target of the SFT baseline.
    level: Difficulty, as the set names it; '' where it has none.
    subject: Group for reports, as the set names it; '' where it has none.
  """

  id: str
  question: str
  answer: str | None = None
  tests: Tests | None = None
  solution: str | None = None
  level: str = ''
  subject: str = ''


@dataclass(frozen=True, slots=True)
class Completion:
  """One answer drawn from the model.

  Invariant: `tokens`, without the end token, decode to `text`. So what is
  judged, what is stored and what is trained on are the same.

  Attributes:
    text: The decoded answer, cut before the task's stop string, without the end
      token. Other special tokens are written out, so that a verifier sees them.
    tokens: Token ids as drawn. When `finished`, the last one is an end token.
      Where a stop string begins inside a token, what of the text that token
      held is encoded anew.
    logprobs: Log-probability under the model (temperature 1, no truncation), in
      float32, of the tokens that were drawn: all, or the first, where a stop
      string has cut the answer. What stands in the place of the cut, the end
      token among it, was not drawn and has none.
    ended: By what: an end 'token', a 'stop' string, or the length 'limit'.
  """

  text: str
  tokens: tuple[int, ...]
  logprobs: tuple[float, ...]
  ended: Literal['token', 'stop', 'limit']

  @property
  def finished(self) -> bool:
    """Whether the model ended the answer, rather than the length limit."""
    return self.ended != 'limit'


@dataclass(frozen=True, slots=True)
class Verdict:
  """What a verifier says of one completion.

  Attributes:
    reward: 1.0 correct, 0.0 incorrect, None unknown (the verifier failed, the
      reference is unreadable, the host was overloaded). Unknown is never
      counted as either.
    reason: One short word or phrase: why.
    verifier: Name and version of the verifier, such as 'math-1'.
  """

  reward: float | None
  reason: str
  verifier: str

  @property
  def readable(self) -> bool:
    """Whether the text held something to judge, right or wrong."""
    return self.reason not in ('no answer', 'syntax')


@dataclass(frozen=True, slots=True)
class Graded:
  """One sample with its verdict: a line of the store.

  What is judged is its `answer`, what is trained on its completion.
  """

  problem_id: str
  sample: int
  prompt: str
  completion: Completion
  verdict: Verdict

  @property
  def answer(self) -> str:
    """What stands behind the thoughts; '' where they never end."""
    return without_thoughts(self.prompt, self.completion.text)

  @property
  def finished(self) -> bool:
    """Whether the model came to the end of its thoughts, and of its answer."""
    text = self.completion.text
    return self.completion.finished and answer_start(self.prompt, text) >= 0


@dataclass(frozen=True, slots=True)
class Kept:
  """One line of a dataset: a solution to train on.

  Only what training reads, and nothing that rounding could change from run to
  run: the same samples give the same bytes.

  Attributes:
    problem_id: What it solves.
    sample: Its number.
    prompt: The question as it was asked.
    text: The solution.
    tokens: As drawn.
    weight: Of it in training.
    hinted: Whether the question held the answer (rationalization).
  """

  problem_id: str
  sample: int
  prompt: str
  text: str
  tokens: tuple[int, ...]
  weight: float = 1.0
  hinted: bool = False


# In quotes, it is a text that a program handles.
_END_OF_THOUGHTS = re.compile(r'</think>(?![\'"\\])')
_THOUGHTS = '<think>'


def answer_start(prompt: str, text: str) -> int:
  """Returns where the answer begins in a completion: behind the thoughts.

  Models write '<think>', thoughts, '</think>' and an answer (Qwen3), or their
  template has written the first of it (DeepSeek-R1).

  Args:
    prompt: What the completion goes on.
    text: Of the completion.

  Returns:
    An index of the text: 0 where there are no thoughts; -1 where they never
    end.
  """
  end = 0
  if '</think>' in text:  # Few have any, and this is asked of every sample.
    *_, end = (0, *(match.end() for match in _END_OF_THOUGHTS.finditer(text)))
  opened = not end and prompt.rstrip().endswith(_THOUGHTS)
  return -1 if opened or text[end:].lstrip().startswith(_THOUGHTS) else end


def without_thoughts(prompt: str, text: str) -> str:
  """Returns what stands behind the thoughts; '' where they never end."""
  start = answer_start(prompt, text)
  return text[start:] if start >= 0 else ''


class Task(Protocol):
  """A problem set, how it is asked, and who judges it.

  A prompt is `prefix + question(problem)`; the two are tokenized apart, so that
  the prefix (few-shot examples, shared by all problems) is cached once.

  Attributes:
    name: As in `config.task.name`.
    version: Changes whenever prompts, stop texts, splits or parsing do.
    verifier: Which verifier judges completions: 'math', 'program' or 'exact'.
    prefix: Few-shot text before every question; '' for zero-shot.
    stop: Texts that end a completion, cut off before judging.
    turn_end: The special token that ends an answer in a chat; '' where a prompt
      is no chat. A chat is written out with all its special tokens.
  """

  name: str
  version: str
  verifier: str
  prefix: str
  stop: tuple[str, ...]
  turn_end: str

  def problems(self, split: str) -> list[Problem]:
    """Returns the problems of 'train', 'validation' or 'test', in order."""
    ...

  def question(self, problem: Problem) -> str:
    """Returns the part of the prompt that asks this problem."""
    ...

  def target(self, problem: Problem) -> str:
    """Returns the human solution in the form that the model should write."""
    ...

  def program(self, problem: Problem, completion: str) -> str:
    """Returns the program to run: the completion in its setting."""
    ...


class Tokenizer(Protocol):
  """Text to ids and back.

  Attributes:
    vocab_size: One more than the largest id.
    bos: Id put before every prompt, or None where the model wants none.
    eos: Ids that end a completion; the first is the one we train on.
    pad: Id that fills unused positions; never attended to.
  """

  vocab_size: int
  bos: int | None
  eos: tuple[int, ...]
  pad: int

  def encode(self, text: str, follows: bool = False) -> list[int]:
    """Returns ids without begin or end tokens.

    Args:
      text: Any text.
      follows: Whether the text goes on a sequence, rather than starts it: some
        models put a space before what starts one.
    """
    ...

  def decode(self, tokens: Sequence[int], follows: bool = False) -> str:
    """Returns text that hides no token.

    Args:
      tokens: Any ids. Special tokens are written out; broken UTF-8, and ids
        that stand for nothing, become U+FFFD.
      follows: As in `encode`; True for completions, whose first space counts.
    """
    ...
