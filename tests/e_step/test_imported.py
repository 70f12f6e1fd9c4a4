"""Samples drawn elsewhere become the parts of an iteration."""

import json
import pathlib
from typing import Any

import pytest
import small_run

from rest import tasks
from rest.e_step import imported
from rest.model import tokenizer
from rest.run import dataset, store
from rest.verify import Pool, VerifyConfig

TASK = tasks.make(tasks.TaskConfig('arithmetic', num_train=4))
PROBLEMS = TASK.problems('train')
CODEC = tokenizer.load(small_run.BASE)


@pytest.fixture(scope='module')
def pool():
  with Pool(VerifyConfig(workers=1), ('math',)) as pool:
    yield pool


def reply(name: str, *choices: dict[str, Any], **fields) -> dict[str, Any]:
  """Returns a line of the output of a batch, as vLLM writes it."""
  return {
    'id': 'vllm-1',
    'custom_id': name,
    'response': {
      'status_code': 200,
      'request_id': 'vllm-batch-1',
      'body': {'object': 'chat.completion', 'choices': [*choices]},
    },
    'error': None,
    **fields,
  }


def chat(text: str | None, why: str = 'stop') -> dict[str, Any]:
  message = {'role': 'assistant', 'content': text}
  return {'index': 0, 'message': message, 'finish_reason': why}


def grade(lines: list[Any], folder: pathlib.Path, pool: Pool, task=TASK) -> int:
  path = folder / 'samples.jsonl'
  path.write_text(''.join(json.dumps(line) + '\n' for line in lines))
  found = imported.read(str(path), PROBLEMS)
  parts = store.Parts(folder / 'parts')
  return imported.grade(found, PROBLEMS, task, CODEC, parts, pool)


def rows(folder: pathlib.Path) -> list[tuple[str, int, str, float | None, str]]:
  groups = store.Parts(folder / 'parts').read_done()
  graded = [row for group in groups for row in group]
  assert all(
    dataset.says(CODEC, row.completion.tokens, row.completion.text)
    for row in graded
  )
  return [
    (
      row.problem_id,
      row.sample,
      row.completion.text,
      row.verdict.reward,
      row.completion.ended,
    )
    for row in graded
  ]


def test_thoughts_are_not_judged(pool, tmp_path):
  class Thinker(type(TASK)):
    """Its template has opened the thoughts, as DeepSeek-R1's does."""

    def question(self, problem):
      return f'{super().question(problem)}<think>\n'

  task = Thinker(TASK.config)
  problem = PROBLEMS[0]
  right = f'#### {problem.answer}'
  lines = [
    reply(problem.id, chat(f'Perhaps #### -1.</think>{right}'), chat(right))
  ]
  assert grade(lines, tmp_path, pool, task) == 0
  # The second never ends its thoughts, and has no answer.
  assert [reward for _, _, _, reward, _ in rows(tmp_path)] == [1.0, 0.0]


def test_a_batch_of_vllm_is_graded(pool, tmp_path):
  first, second, third, _ = PROBLEMS
  right = f'#### {first.answer}'
  lines = [
    reply(first.id, chat(right), chat('#### -1'), chat(right, 'length')),
    reply(f'{second.id}#1', {'text': 'A.', 'finish_reason': 'stop'}),
    reply(f'{second.id}#2', {'text': 'B.', 'finish_reason': 'stop'}),
    reply(third.id, chat(None)),
    reply(third.id, response=None, error={'code': '429', 'message': 'busy'}),
    reply(third.id, response={'status_code': 400, 'body': {'error': 'no'}}),
    reply('arithmetic/test/0', chat('#### 3')),
  ]
  assert grade(lines, tmp_path, pool) == 0
  assert rows(tmp_path) == [
    (first.id, 0, right, 1.0, 'token'),
    (first.id, 1, '#### -1', 0.0, 'token'),
    (first.id, 2, right, 1.0, 'limit'),
    (second.id, 0, 'A.', 0.0, 'token'),
    (second.id, 1, 'B.', 0.0, 'token'),
  ]


def test_lines_of_problem_and_text_are_graded(pool, tmp_path):
  problem = PROBLEMS[2]
  lines = [
    {'problem': problem.question, 'text': f'#### {problem.answer}'},
    {'problem': problem.id, 'text': 'a\u2581b'},  # SentencePiece's own space.
    {'problem': problem.id, 'text': 'No.', 'ended': 'limit'},
  ]
  assert grade(lines, tmp_path, pool) == 1
  assert rows(tmp_path) == [
    (problem.id, 0, f'#### {problem.answer}', 1.0, 'token'),
    (problem.id, 1, 'No.', 0.0, 'limit'),
  ]


def test_parts_that_are_there_stay_and_damaged_ones_do_not(pool, tmp_path):
  lines = [{'problem': p.id, 'text': f'#### {p.answer}'} for p in PROBLEMS]
  grade(lines, tmp_path, pool)
  before = rows(tmp_path)
  kept = (tmp_path / 'parts/part-000000.jsonl.gz').stat().st_mtime_ns
  (tmp_path / 'parts/part-000001.jsonl.gz').write_text('{')
  (tmp_path / 'parts/part-000002.jsonl.gz').unlink()
  grade(lines, tmp_path, pool)
  assert rows(tmp_path) == before
  assert (tmp_path / 'parts/part-000000.jsonl.gz').stat().st_mtime_ns == kept


def test_texts_end_before_a_stop_string(pool, tmp_path):
  class Stopping(type(TASK)):
    stop = ('\nQ:', '\n\n')

  task = Stopping(TASK.config)
  lines = [{'problem': PROBLEMS[0].id, 'text': '#### 3\n\nQ: 4\nQ:'}]
  grade(lines, tmp_path, pool, task)
  assert [row[2:] for row in rows(tmp_path)] == [('#### 3', 0.0, 'stop')]


@pytest.mark.parametrize(
  ('line', 'match'),
  [
    ({'problem': 'x', 'text': ''}, "no sample of a training problem.*'x'"),
    ({'problem': 'x'}, "line 1: field 'text' is missing"),
    ({'text': 'x'}, "line 1: field 'problem' is missing"),
    ({'problem': 'x', 'text': 3}, "line 1: field 'text' must be text, got 3"),
    ({'problem': 'x', 'text': '', 'ended': 'no'}, "field 'ended' must be one"),
    (reply('x', response={}), "line 1, response: field 'body' is missing"),
    (
      reply('x', response={'body': {'choices': [1]}}),
      r'response\.body, choices: must be a JSON object, got 1',
    ),
    (reply('x', {'message': 'y'}), "choices: field 'message' must be an obj"),
    (reply('x', {}), "choices: field 'text' is missing"),
    ([1], 'line 1: must be a JSON object'),
  ],
)
def test_a_line_that_is_no_sample_is_named(line, match, pool, tmp_path):
  with pytest.raises(ValueError, match=match):
    grade([line], tmp_path, pool)
  assert not (tmp_path / 'parts').exists()
