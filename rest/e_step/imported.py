"""Samples that something else drew: their file, and how parts are made of it.

A line of the file is an object of `problem` (the id of one, or its question)
and `text`, perhaps with `ended` as in a part file; or a line of the output of a
batch in OpenAI's format, as vLLM writes it, whose `custom_id` is the problem's
id, with or without '#' and what tells apart several requests for it.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future

from etils import epath

from rest.e_step.variants import encode_anew
from rest.model.completion import complete
from rest.run import store
from rest.tasks import files
from rest.types import Completion, Graded, Problem, Task, Tokenizer, Verdict
from rest.verify import make_request
from rest.verify.answers import Judge

_ENDS = ('token', 'stop', 'limit')
_AHEAD = 64  # Problems whose verdicts are under way.


def read(path: str, problems: Sequence[Problem]) -> dict[int, list[Completion]]:
  """Returns the samples of a file, without tokens, by position of the problem.

  What is of no problem here (of a test split, say) is left out, and so are
  requests of a batch that failed.

  Raises:
    ValueError: A line is not as it should be; or there is no sample.
  """
  places = {problem.question: i for i, problem in enumerate(problems)}
  places |= {problem.id: i for i, problem in enumerate(problems)}
  found: dict[int, list[Completion]] = {}
  name = ''
  for record in files.read_jsonl(epath.Path(path)):
    is_batch = 'custom_id' in record.fields
    name = record.text('custom_id' if is_batch else 'problem')
    samples = _batch(record) if is_batch else [_plain(record)]
    place = places.get(name, places.get(name.rpartition('#')[0]))
    if place is not None and samples:
      found.setdefault(place, []).extend(samples)
  if not found:
    raise ValueError(
      f'em.samples_of: {path} has no sample of a training problem; its last '
      f'line is of {name!r}, the first problem is {problems[0].id!r}.'
    )
  return found


def grade(
  found: Mapping[int, Sequence[Completion]],
  problems: Sequence[Problem],
  task: Task,
  tokenizer: Tokenizer,
  parts: store.Parts,
  judge: Judge,
) -> int:
  """Writes the parts that are not there yet.

  Texts end before the task's stop strings, as if they had been drawn here.

  Args:
    found: What `read` returned.
    problems: The problems of those positions.
    task: Says how they are asked.
    tokenizer: Of the model to train.
    parts: Where they go.
    judge: Reaches the verdicts.

  Returns:
    How many samples were left out: the tokenizer cannot write their text.
  """
  parts.mend([problem.id for problem in problems])
  waiting: deque[tuple[int, list[Completion], list[Future[Verdict]]]] = deque()
  left_out = 0

  def write() -> None:
    index, completions, verdicts = waiting.popleft()
    rows = _rows(problems[index], task, completions, verdicts)
    parts.write(index, rows)

  for index in sorted(found.keys() - parts.done()):
    encoded = [encode_anew(sample, tokenizer) for sample in found[index]]
    completions = [
      complete(sample.tokens, (), tokenizer, task.stop)
      for sample in encoded
      if sample and sample.tokens
    ]
    left_out += len(encoded) - len(completions)
    if completions:
      problem = problems[index]
      prompt = task.question(problem)
      requests = [
        make_request(task, problem, completion.text, prompt)
        for completion in completions
      ]
      waiting.append((index, completions, [*map(judge.submit, requests)]))
    if len(waiting) > _AHEAD:
      write()
  while waiting:
    write()
  return left_out


def _rows(
  problem: Problem,
  task: Task,
  completions: Sequence[Completion],
  verdicts: Sequence[Future[Verdict]],
) -> list[Graded]:
  prompt = task.question(problem)
  pairs = enumerate(zip(completions, verdicts, strict=True))
  return [
    Graded(problem.id, sample, prompt, completion, verdict.result())
    for sample, (completion, verdict) in pairs
  ]


def _plain(record: files.Record) -> Completion:
  ended = record.fields.get('ended', 'token')
  if ended not in _ENDS:
    raise ValueError(
      f"{record.where}: field 'ended' must be one of {_ENDS}, got {ended!r}."
    )
  return Completion(record.text('text'), (), (), ended)


def _batch(record: files.Record) -> list[Completion]:
  """Returns the samples of one request; none where it failed."""
  response = record.fields.get('response')
  if record.fields.get('error') or not isinstance(response, dict):
    return []
  if response.get('status_code', 200) != 200:
    return []
  where = f'{record.where}, response'
  body = files.Record(response, where).object('body')
  samples = []
  for choice in files.Record(body, f'{where}.body').objects('choices'):
    if 'message' in choice.fields:  # Of a chat.
      text = choice.object('message').get('content')
    else:
      text = choice.text('text')
    if isinstance(text, str):  # Else a call of a tool, or only thoughts.
      is_whole = choice.fields.get('finish_reason') == 'stop'
      samples.append(Completion(text, (), (), 'token' if is_whole else 'limit'))
  return samples
