"""Questions go in, from a person or a file, and answers come out."""

import contextlib
import io
import json
import pathlib

import pytest
import small_run

from rest.e_step.draw import prompt_tokens
from rest.model import tokenizer
from rest.types import Problem
from rest.use import sample

ROLLS = (
  'Anna bakes 4 trays of 6 rolls. A customer takes 9 rolls. '
  'How many rolls are left?'
)
CATS = 'Tom has 3 cats. He buys 4 cats. How many cats does he have?'


@pytest.fixture(scope='module')
def run(tmp_path_factory) -> str:
  with pytest.MonkeyPatch.context() as patch:
    patch.chdir(small_run.ROOT)
    return str(small_run.write(tmp_path_factory.mktemp('sample') / 'run'))


@pytest.fixture
def questions(tmp_path) -> str:
  """A file of both kinds of line."""
  first = json.dumps({'question': ROLLS, 'gold': '15', 'sample': 'replaced'})
  (tmp_path / 'questions.jsonl').write_text(f'{first}\n\n{CATS}\n')
  return f'--prompts={tmp_path / "questions.jsonl"}'


def _answers(capsys, *arguments: str) -> list[dict[str, object]]:
  """Returns two answers a question: all tests share one compiled program."""
  capsys.readouterr()
  sample.main([*arguments, '--num_samples=2'])
  return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def _refused(*arguments: str) -> str:
  said = io.StringIO()
  with contextlib.redirect_stderr(said), pytest.raises(SystemExit, match='2'):
    sample.main(list(arguments))
  return said.getvalue()


def test_each_question_gets_its_answers_in_order(run, questions, capsys):
  answers = _answers(capsys, run, questions)
  assert [(a['question'], a['sample']) for a in answers] == [
    (question, index) for question in (ROLLS, CATS) for index in range(2)
  ]
  assert [a.get('gold') for a in answers] == ['15'] * 2 + [None] * 2
  assert all(set(a) >= {'text', 'finished'} for a in answers)


def test_a_checkpoint_asked_by_a_task_answers_as_the_run_does(
  run, questions, capsys
):
  greedy = (questions, '--temperature=0', '--max_tokens=64')
  ours = _answers(capsys, run, '--iteration=0', *greedy)
  arguments = ('--task=arithmetic', '--max_prompt_tokens=128', *greedy)
  theirs = _answers(capsys, small_run.BASE, *arguments)
  assert ours == theirs
  assert '####' in str(ours[0]['text'])
  # The default is the last model, which is another.
  assert _answers(capsys, run, *greedy) != ours


def test_the_seed_names_the_answers(run, questions, capsys):
  arguments = (run, questions, '--temperature=1')
  first, again, other = (
    _answers(capsys, *arguments, f'--seed={seed}') for seed in (1, 1, 2)
  )
  assert first == again
  assert first != other


def test_answers_go_to_a_file_whole(run, questions, tmp_path, capsys):
  out = tmp_path / 'answers.jsonl'
  printed = _answers(capsys, run, questions)
  sample.main([run, questions, f'--out={out}', '--num_samples=2'])
  assert '4 answers to 2 questions' in capsys.readouterr().out
  assert [json.loads(line) for line in out.read_text().splitlines()] == printed
  before = out.read_text()
  long = tmp_path / 'long.jsonl'
  long.write_text(f'{CATS}\n{"x " * 200}\n')
  message = _refused(run, f'--prompts={long}', f'--out={out}')
  assert 'max_prompt_tokens is 128 (key 1)' in message
  assert out.read_text() == before
  assert len(list(tmp_path.iterdir())) == 3


def test_a_person_is_answered_until_there_are_no_more_questions(
  run, capsys, monkeypatch
):
  typed = f'{ROLLS}\n\n{"x " * 200}\n{CATS}\n'
  monkeypatch.setattr('sys.stdin', io.StringIO(typed))
  sample.main([run, '--iteration=0', '--temperature=0', '--num_samples=2'])
  head, *turns = capsys.readouterr().out.split('> ')
  assert 'iteration 0; questions as arithmetic asks them' in head
  rolls, blank, long, cats, end = turns
  for turn in (rolls, cats):
    first, second = turn.split('--- 2 of 2\n')
    assert first == f'--- 1 of 2\n{second.rstrip()}\n'.replace('\n\n', '\n')
  assert 'error: A prompt has' in long
  assert blank + end.strip() == ''


def test_a_question_asked_again_is_answered_anew(run, capsys, monkeypatch):
  monkeypatch.setattr('sys.stdin', io.StringIO(f'{CATS}\n{CATS}\n'))
  sample.main([run, '--temperature=2', '--num_samples=2'])
  _, first, second, _ = capsys.readouterr().out.split('> ')
  assert first != second


def test_an_answer_that_is_cut_says_so(run, capsys, monkeypatch):
  monkeypatch.setattr('sys.stdin', io.StringIO('x'))
  sample.main([run, '--max_tokens=33', '--num_samples=2', '--task=none'])
  assert '[cut at 33 tokens: see --max_tokens]' in capsys.readouterr().out


def test_without_a_task_the_text_is_the_prompt():
  codec = tokenizer.load(small_run.BASE)
  problem = Problem(id='0', question='a b')
  prefix, question = prompt_tokens(sample.AS_IS, codec, problem)
  assert prefix == [codec.bos]
  assert question == codec.encode('a b')


@pytest.mark.parametrize(
  ('line', 'message'),
  [
    ('', 'has no questions'),
    ('{"question": "a"}\n{"question": 3}', "line 2: expected a text as 'ques"),
    ('{"question": "a"', r'line 1: Expecting'),
  ],
)
def test_a_wrong_file_is_named_by_line(line, message, run, tmp_path):
  (tmp_path / 'wrong').write_text(line)
  assert message in _refused(run, f'--prompts={tmp_path / "wrong"}')


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (('/nowhere',), '/nowhere is neither a run (it has no run.json) nor'),
    (('RUN', '--iteration=2'), 'iteration 2: it is not finished'),
    (('RUN', '--top_p=3'), 'top_p must lie in'),
    (('RUN', '--num_samples=0'), '--num_samples must be 1 or more'),
    (('RUN', '--prompt=few_shot'), '--prompt needs a --task'),
    (('RUN', '--task=arithmetic', '--prompt=few_shot'), 'task.prompt'),
    (('RUN', '--out=answers'), '--out needs --prompts'),
    (('RUN', '--prompts=/nowhere'), '/nowhere'),
    (('RUN', '--tensor=3'), 'tensor=3'),
    (('RUN', 'FILE', '--task=mbpp'), 'an empty line, and tests'),
    ((small_run.BASE, '--iteration=1'), '--iteration belongs to runs'),
  ],
)
def test_a_wrong_argument_is_named(arguments, message, run, questions):
  known = {'RUN': run, 'FILE': questions}
  assert message in _refused(*(known.get(a, a) for a in arguments))


def test_the_help_names_every_flag_and_gives_commands(capsys):
  with pytest.raises(SystemExit):
    sample.main(['--help'])
  text = capsys.readouterr().out
  for flag in ('--iteration', '--prompts', '--out', '--task', '--temperature'):
    assert flag in text
  assert 'python -m rest.use.sample quickstart --iteration=2' in text
  assert pathlib.Path(sample.__file__).name == 'sample.py'
