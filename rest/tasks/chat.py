"""Problems put as a chat, by the template that a model brings with it."""

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from etils import epath

from rest.tasks import files, render
from rest.tasks.problem_set import ProblemSet
from rest.types import Problem

_PATIENCE = 60  # Seconds for a rendering, on a host with other work to do.
# Stand-ins for what users ask, and for an answer: no template has these words.
_QUESTIONS = ('Query 7309 of 41?', 'What 2865 is, say!')
_ANSWER = 'Reply 5143.'
_NONE = (
  "task.prompt='chat' needs a model with a chat template, but {} has neither "
  'chat_template.jinja nor a chat_template in tokenizer_config.json: it may be '
  'a base model.'
)

Turn = tuple[str, str]  # What a user asks, and what is answered.


@dataclass(frozen=True, slots=True)
class Form:
  """What a template makes of a chat, but for the question that ends it.

  Attributes:
    prefix: What comes first whatever is asked. It ends in a special token, at
      which tokenizers part their text: its tokens are the prompt's first.
    before: What stands between it and the question.
    after: What follows the question: the head of the answer's turn, if any.
    turn_end: The special token behind an answer.
    missing_head: What stands before an answer in a chat that goes on, where the
      template does not put it before an answer to come; '' where it does.
  """

  prefix: str
  before: str
  after: str
  turn_end: str
  missing_head: str


class Chat:
  """A task, asked in the form of a model's chat template.

  Invariant: `prefix + question(problem)` is what the template makes of system
  turn, examples and question. It is rendered once, around stand-ins; problems
  take their place, and are never seen by the template.

  Example: Qwen's template writes '<|im_start|>user\n' before a question, so
  that the prefix ends in the '<|im_start|>', and a question is
  'user\nHow many?<|im_end|>\n<|im_start|>assistant\n'.
  """

  def __init__(self, task: ProblemSet, model: str):
    """Reads the template.

    Args:
      task: Has the problems; its config, the system turn and the examples.
      model: A checkpoint directory.

    Raises:
      FileNotFoundError: It is not there.
      ValueError: It has no template, or one that is of no use; or the task has
        not as many examples.
    """
    self.name = task.name
    self.version = task.version
    self.verifier = task.verifier
    self.program = task.program
    self.problems = task.problems
    self.stop = ()
    self.form = read_form(model, task.config.system, _examples(task))
    self.prefix = self.form.prefix
    self.turn_end = self.form.turn_end
    self._task = task

  def question(self, problem: Problem) -> str:
    said = self._task.message(problem).strip()
    return f'{self.form.before}{said}{self.form.after}'

  def target(self, problem: Problem) -> str:
    return self._task.target(problem).strip()


def read_form(model: str, system: str, examples: Sequence[Turn]) -> Form:
  """Returns the form that a model's template gives to a chat.

  Args:
    model: A checkpoint directory.
    system: What the system turn says; '' leaves it out, and to the template.
    examples: Turns before the question.

  Raises:
    FileNotFoundError: There is no such directory.
    ValueError: It has no template, or one that is of no use.
  """
  where = f'The chat template of {model}'
  before = [{'role': 'system', 'content': system}] if system else []
  for asked, answered in examples:
    before += [_user(asked), {'role': 'assistant', 'content': answered}]
  chats = [[[*before, _user(question)], True] for question in _QUESTIONS]
  ends = [*before, _user(_QUESTIONS[0])]
  answered = {'role': 'assistant', 'content': _ANSWER}
  chats += [[ends, False], [[*ends, answered], False]]
  *asked, unasked, history = _render(model, chats, where)
  parts = [
    text.split(question)
    for text, question in zip(asked, _QUESTIONS, strict=True)
  ]
  if parts[0] != parts[1] or len(parts[0]) != 2:
    raise ValueError(
      f'{where} does not put a question, as it is, in one place.'
    )
  begin, after = parts[0]
  special = _special_tokens(model)
  head, found, tail = history.rpartition(_QUESTIONS[0])[2].partition(_ANSWER)
  turn_end = special.search(tail)
  if not found or not turn_end:
    raise ValueError(
      f'{where} puts no special token behind an answer: {history[-80:]!r}.'
    )
  cut = max((match.end() for match in special.finditer(begin)), default=0)
  return Form(
    prefix=begin[:cut],
    before=begin[cut:],
    after=after,
    turn_end=turn_end.group(),
    missing_head=(
      head.removeprefix(after).strip() if unasked == asked[0] else ''
    ),
  )


def _user(content: str) -> dict[str, str]:
  return {'role': 'user', 'content': content.strip()}


def _examples(task: ProblemSet) -> list[Turn]:
  count = task.config.shots
  found = task.turns() if count else []
  if len(found) < count:
    raise ValueError(
      f'task.shots={count}, but {task.name} has {len(found)} examples.'
    )
  return found[:count]


def _render(model: str, chats: list[Any], where: str) -> list[str]:
  template, variables = _read(model)
  job = {'template': template, 'variables': variables, 'chats': chats}
  try:
    done = subprocess.run(
      [sys.executable, '-P', '-s', '-B', render.__file__],
      input=json.dumps(job),
      capture_output=True,
      text=True,
      timeout=_PATIENCE,
      check=False,
    )
  except subprocess.TimeoutExpired:
    done = None
  if done is None or done.returncode:
    raise ValueError(
      f'{where} comes to no end in {render.SECONDS} seconds and 1 GiB.'
    )
  answer = json.loads(done.stdout)
  if 'error' in answer:
    raise ValueError(f'{where} cannot be used: {answer["error"]}.')
  return answer['texts']


def _read(model: str) -> tuple[str, dict[str, str]]:
  """Returns a model's template, and the special tokens that it may name."""
  folder = epath.Path(model)
  if not folder.is_dir():
    raise FileNotFoundError(f'model.path: there is no folder {model!r}.')
  variables: dict[str, str] = {}
  settings: dict[str, Any] = {}
  for name in ('special_tokens_map.json', 'tokenizer_config.json'):
    if (folder / name).exists():
      path = folder / name
      settings = files.parse(path.read_bytes(), str(path)).fields
      for key, token in settings.items():
        text = token.get('content') if isinstance(token, dict) else token
        if key.endswith('_token') and isinstance(text, str):
          variables[key] = text
  if (folder / 'chat_template.jinja').exists():
    return (folder / 'chat_template.jinja').read_text(), variables
  template = settings.get('chat_template')
  if isinstance(template, list):  # By name, as some models have several.
    template = next(
      (each['template'] for each in template if each['name'] == 'default'), ''
    )
  if not template:
    raise ValueError(_NONE.format(model))
  return template, variables


def _special_tokens(model: str) -> re.Pattern[str]:
  """Returns what finds special tokens in a text, the longest first."""
  path = epath.Path(model) / 'tokenizer.json'
  if not path.exists():
    raise ValueError(
      f"task.prompt='chat' needs {path}: other tokenizers read special tokens "
      'as text.'
    )
  added = files.parse(path.read_bytes(), str(path)).fields.get(
    'added_tokens', ()
  )
  texts = [token['content'] for token in added if token['special']]
  longest = sorted(texts, key=len, reverse=True)
  return re.compile('|'.join(map(re.escape, longest)) or r'(?!)')
