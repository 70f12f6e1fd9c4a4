"""A plan shows a prompt, and warns of what usually goes wrong with one."""

import importlib

import pytest
import small_chat
from etils import epath
from small_run import BASE

from rest import main
from rest.model import tokenizer
from rest.plan import outline, prompt
from rest.tasks.chat import read_form


class Asked:
  """What the warnings look at."""

  stop = ('\nQ:',)
  turn_end = ''


class Chatted:
  stop = ()
  turn_end = '</s>'


def _warnings(model: str, task: object, tokens=(1, 9)) -> list[str]:
  own = tokenizer.load(model)
  form = read_form(model, '', ()) if model != BASE else None
  return [*prompt.warnings(task, tokens, own, form)]  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
  ('template', 'task', 'tokens', 'said'),
  [
    (small_chat.PLAIN, Chatted, (1, 9), []),
    ('', Asked, (1, 9), []),
    ('', Asked, (1, 1, 9), ["two begin tokens, '<s>'"]),
    (small_chat.PLAIN, Asked, (1, 9), ['never write the stop texts']),
    (
      small_chat.PLAIN.replace('eos_token', "'<pad>'"),
      Chatted,
      (1, 9),
      ["ends at '</s>', not at the end of a turn, '<pad>'"],
    ),
    (
      small_chat.PLAIN.replace(
        '{{ m.content', "{{ 'A: ' if m.role == 'assistant' }}{{ m.content"
      ),
      Chatted,
      (1, 9),
      ["has to write 'A:' itself"],
    ),
  ],
)
def test_traps_are_told(template, task, tokens, said, tmp_path):
  model = small_chat.write(tmp_path / 'm', template) if template else BASE
  warnings = _warnings(model, task, tokens)
  assert len(warnings) == len(said)
  for text, words in zip(warnings, said, strict=True):
    assert words in text


def test_a_plan_shows_a_whole_prompt(tmp_path):
  config = importlib.import_module('configs.arithmetic').get_config()
  config.model.path = small_chat.write(tmp_path / 'model')
  config.task.prompt, config.task.system = 'chat', 'Be brief.'
  config.task.num_train, config.sampling.max_prompt_tokens = 8, 256
  run = main.prepare(config, epath.Path(tmp_path / 'run'))
  lines = outline.describe(run).split('\n')
  at = next(i for i, line in enumerate(lines) if line.startswith('prompt '))
  problem = run.world.task.problems('train')[0]
  assert problem.id in lines[at]
  assert '8 of them shared by all' in lines[at]
  asked = run.world.task.prefix + run.world.task.question(problem)
  assert '<s>Be brief.' in asked
  shown = [f'          | {line}' for line in asked.split('\n')]
  *shown_there, ends = lines[at + 1 : at + 2 + len(shown)]
  assert shown_there == shown
  assert ends.startswith(
    "ends      at '</s>' (end token 2), or after 192 tokens"
  )
