"""A chat's tokens are those of `transformers`; bad templates are told early."""

import dataclasses

import excerpts
import pytest
from vocabularies import byte_level, metaspace, write_json

from rest import tasks
from rest.e_step.draw import prompt_tokens
from rest.model import tokenizer
from rest.tasks.chat import Chat, read_form
from rest.tasks.problem_set import ProblemSet
from rest.types import Problem

MARKS = (
  *('<s>', '</s>', '<unk>', '<|im_start|>', '<|im_end|>', '<|head|>'),
  *('<|/head|>', '<|eot|>', '<turn>', '<|end|>'),
)
LOOP = "{% for m in messages %}{%- set role = m['role'] -%}"
# In the manner of the families, each with what is its own.
TEMPLATES = {
  'qwen2': "{%- if messages[0].role != 'system' %}{{- '<|im_start|>system\\n"
  "You help.<|im_end|>\\n' }}{%- endif %}"
  + LOOP
  + "{{- '<|im_start|>' + role + '\\n' + m.content + '<|im_end|>' + '\\n' }}"
  "{%- endfor %}{% if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}"
  '{% endif %}\n',
  # Looks back for the last question, and opens the thoughts of what follows.
  'qwen3': '{%- set ns = namespace(last=0) %}{%- for m in messages[::-1] %}'
  "{%- if m.role == 'user' %}{%- set ns.last = messages|length - 1 - "
  'loop.index0 %}{%- break %}{%- endif %}{%- endfor %}'
  + LOOP
  + "{%- set said = m.content.split('</think>')[-1] if loop.index0 < ns.last "
  "else m.content %}{{- '<|im_start|>' ~ role ~ '\\n' ~ said ~ "
  "'<|im_end|>\\n' }}{%- endfor %}{%- if add_generation_prompt %}{{- "
  "'<|im_start|>assistant\\n<think>\\n' }}{%- endif %}",
  'llama3': '{{- bos_token }}{{- "<|head|>system<|/head|>\\n\\nToday: " + '
  'date_string|default("26 Jul 2024") + "<|eot|>" }}'
  + LOOP
  + "{{- '<|head|>' + role + '<|/head|>\\n\\n' + m['content'] | trim + "
  "'<|eot|>' }}{%- endfor %}{%- if add_generation_prompt %}"
  "{{- '<|head|>assistant<|/head|>\\n\\n' }}{%- endif %}",
  'gemma': "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
  "{{ raise_exception('No system role') }}{% endif %}"
  + LOOP
  + "{% if role == 'assistant' %}{% set role = 'model' %}{% endif %}"
  "{{ '<turn>' + role + '\\n' + m['content'] | trim + '<|end|>\\n' }}"
  "{% endfor %}{% if add_generation_prompt %}{{ '<turn>model\\n' }}{% endif %}",
  # No head of an answer; a space that some tokenizers put anyway.
  'mistral': '{{ bos_token }}'
  + LOOP
  + "{% if role == 'user' %}{{ ' [INST] ' + m.content + ' [/INST]' }}"
  "{% else %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}",
  'olmo2': '{{ bos_token }}'
  + LOOP
  + "{% if role == 'assistant' %}{% generation %}{{ '<|assistant|>\\n' + "
  "m.content + eos_token + ('' if loop.last else '\\n') }}{% endgeneration %}"
  "{% else %}{{ '<|' + role + '|>\\n' + m.content + '\\n' }}{% endif %}"
  "{% if loop.last and add_generation_prompt %}{{ '<|assistant|>\\n' }}"
  '{% endif %}{% endfor %}',
  'phi4': LOOP
  + "{{ '<|im_start|>' + role + '<|head|>' + m.content + '<|im_end|>' }}"
  "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant"
  "<|head|>' }}{% endif %}",
}
VOCABULARIES = {
  'byte_level': lambda: byte_level(MARKS),
  'prepend': lambda: _marked('prepend'),
  'first': lambda: _marked('first'),
}
QUESTIONS = (
  'How many are 2 and 3?',
  '  If $x$:\n\n  x?  ',
  'Ü🙂',
  '\\n',
  'a <s>',
)


class Few(ProblemSet):
  """A set that is asked as it is."""

  name, version, verifier = 'few', '1', 'exact'
  example = r'Q (.*?) A (.*?);'

  def shots(self) -> str:
    return 'Q 1 + 1? A 2.; Q Why? A <think>\nno\n</think>\n\nSo.;'

  def message(self, problem: Problem) -> str:
    return problem.question


def _marked(scheme):
  model = metaspace(scheme)
  model.add_special_tokens(list(MARKS))
  return model


def _model(path, template, vocabulary='byte_level', **settings):
  special = {'bos_token': '<s>', 'eos_token': '</s>', 'unk_token': '<unk>'}
  write_json(
    path,
    VOCABULARIES[vocabulary](),
    tokenizer_config=special | {'chat_template': template} | settings,
  )
  return str(path)


def _chat(model, shots=0, system=''):
  config = tasks.TaskConfig('few', prompt='chat', shots=shots, system=system)
  return Chat(Few(config), model)


@pytest.mark.parametrize('vocabulary', VOCABULARIES)
@pytest.mark.parametrize('family', TEMPLATES)
def test_tokens_equal_transformers(family, vocabulary, tmp_path):
  transformers = pytest.importorskip('transformers')
  model = _model(tmp_path / 'model', TEMPLATES[family], vocabulary)
  reference = transformers.PreTrainedTokenizerFast.from_pretrained(model)
  for shots, system in ((0, ''), (2, ''), (1, 'Be brief.')):
    if system and family == 'gemma':
      continue
    task = _chat(model, shots, system)
    codec = tokenizer.load(model, task.turn_end)
    before = [{'role': 'system', 'content': system}] if system else []
    for asked, answered in Few(tasks.TaskConfig(shots=2)).turns()[:shots]:
      before += [{'role': 'user', 'content': asked}]
      before += [{'role': 'assistant', 'content': answered}]
    for question in QUESTIONS:
      turn = {'role': 'user', 'content': question.strip()}
      expected = reference.apply_chat_template(
        [*before, turn], add_generation_prompt=True, return_dict=False
      )
      prefix, rest = prompt_tokens(task, codec, Problem('0', question))
      assert prefix + rest == expected
      assert prefix == codec.encode(task.prefix)
    # What is shared holds all examples.
    assert ('So.' in codec.decode(prefix)) == (shots == 2)


def test_the_end_of_a_turn_ends_completions_first(tmp_path):
  model = _model(tmp_path / 'model', TEMPLATES['gemma'])
  task = _chat(model)
  codec = tokenizer.load(model, task.turn_end)
  assert (task.turn_end, task.stop) == ('<|end|>', ())
  assert codec.eos == (*codec.encode('<|end|>'), *codec.encode('</s>'))


def test_a_template_of_its_own_file_counts_before_the_config(tmp_path):
  model = _model(tmp_path / 'model', TEMPLATES['qwen2'])
  (tmp_path / 'model/chat_template.jinja').write_text(TEMPLATES['phi4'])
  assert _chat(model).form.after == '<|im_end|><|im_start|>assistant<|head|>'


def test_of_templates_by_name_the_default_is_taken(tmp_path):
  named = [{'name': n, 'template': TEMPLATES[n]} for n in ('phi4', 'qwen2')]
  named[1]['name'] = 'default'
  assert _chat(_model(tmp_path / 'model', named)).form.after.endswith('tant\n')


def test_special_tokens_are_told_to_the_template(tmp_path):
  content = {'content': '<turn>', 'special': True}
  model = _model(tmp_path / 'model', TEMPLATES['olmo2'], bos_token=content)
  assert _chat(model).prefix == '<turn>'


def test_a_template_without_a_head_for_the_answer_is_known(tmp_path):
  headless = TEMPLATES['qwen2'].split('{% if add_generation')[0]
  model = _model(tmp_path / 'model', headless)
  assert read_form(model, '', ()).missing_head == '<|im_start|>assistant'
  for family in ('qwen2', 'qwen3', 'mistral'):
    model = _model(tmp_path / family, TEMPLATES[family])
    assert read_form(model, '', ()).missing_head == ''


BROKEN = {
  "{{ ''.__class__.__mro__ }}": "attribute '__class__' of 'str'.* unsafe",
  "{{ messages.append('a') }}": "'append' of 'list'.* unsafe",
  '{% for m in messages %}{{ m.content }': r'line 1: unexpected',
  "{{ raise_exception('Only tools.') }}": r'cannot be used: Only tools\.',
  '{{ messages[0].content + 1 }}': 'cannot be used: .*concatenate',
  '{{ undefined.a }}': "'undefined' is undefined",
  '{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}'
  '{% endfor %}': 'comes to no end in 5 seconds',
  "{{ 'a' * 9999999999 }}": 'cannot be used: MemoryError',
  "{{ 'a' * 9999999 }}": 'writes more than',
  '{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}': 'recursion',
  '{{ messages[0].content[:5] }}</s>': 'does not put a question, as it is',
  '{% for m in messages %}{{ m.content }}{% endfor %}': 'no special token',
}


@pytest.mark.parametrize('template', BROKEN)
def test_bad_templates_are_refused(template, tmp_path):
  model = _model(tmp_path / 'model', template)
  with pytest.raises(ValueError, match=f'(?s)model.*{BROKEN[template]}'):
    _chat(model)


def test_a_system_turn_that_a_template_refuses_is_told(tmp_path):
  model = _model(tmp_path / 'model', TEMPLATES['gemma'])
  with pytest.raises(ValueError, match='No system role'):
    _chat(model, system='Be brief.')


def test_what_a_chat_needs_is_asked_for(tmp_path):
  base = str(write_json(tmp_path / 'base', byte_level(MARKS)))
  with pytest.raises(ValueError, match=r'chat_template\.jinja.* a base model'):
    _chat(base)
  with pytest.raises(FileNotFoundError, match=r'model\.path'):
    _chat(str(tmp_path / 'none'))
  model = _model(tmp_path / 'model', TEMPLATES['qwen2'])
  with pytest.raises(ValueError, match=r'task\.shots=3, but few has 2'):
    _chat(model, shots=3)
  (tmp_path / 'model/tokenizer.json').unlink()
  with pytest.raises(ValueError, match=r"chat' needs .*tokenizer\.json"):
    _chat(model)


COUNTS = {
  'gsm8k': 8,
  'math': 4,
  'mbpp': 3,
  'apps': 2,
  'hungarian_exam': 1,
  'humaneval': 0,
  'bbh': 0,
  'arithmetic': 0,
}


@pytest.mark.parametrize('name', COUNTS)
def test_every_set_can_be_asked_as_a_chat(name, tmp_path):
  model = _model(tmp_path / 'model', TEMPLATES['qwen2'])
  folder = None if name == 'arithmetic' else str(excerpts.DATA / name)
  config = tasks.TaskConfig(
    name,
    folder or '',
    prompt='chat',
    shots=COUNTS[name],
    split='word_sorting' if name == 'bbh' else '',
    num_validation=1,
  )
  chat = tasks.for_model(config, model)
  problem = chat.problems('test')[0]
  asked = chat.question(problem)
  marks = ('[BEGIN]', 'ANSWER:', '\nAnswer:', 'Solution:', 'QUESTION:', '\nA:')
  assert not any(mark in chat.prefix + asked for mark in marks)
  assert problem.question.strip()[:40] in asked or name in ('apps', 'mbpp')
  assert chat.prefix.count('<|im_end|>') == 1 + 2 * config.shots
  # How an answer is to be written: where no examples show it.
  assert ('\n\nPlease ' in asked) == (not config.shots)
  more = dataclasses.replace(config, shots=config.shots + 1)
  with pytest.raises(ValueError, match=f'has {config.shots} examples'):
    tasks.for_model(more, model)
