"""Answers questions from a run's model, or from a Hugging Face directory.

  python -m rest.use.sample quickstart --iteration=2
  python -m rest.use.sample quickstart --prompts=in.jsonl --out=answers.jsonl
  python -m rest.use.sample MODEL --task=gsm8k --temperature=0

Without --prompts it asks for one question after another; Ctrl-D ends. A file
(or '-', standard input) has a question a line: plain text, or a JSON object
with 'question' and what else should stand beside its answers. Out come JSON
lines, one an answer: these fields, 'sample', 'text' and 'finished'.

A run's model is asked as the run asked it: its few-shot prefix, its form of a
question, its stop texts. Other models get the text as it is; --task says
otherwise. The same seed gives the same answers.
"""

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from etils import epath
from jax.sharding import Mesh

from rest import tasks
from rest.config import AS_PUBLISHED
from rest.e_step.draw import prompt_tokens
from rest.model import sharding, tokenizer, weights
from rest.model.transformer import Transformer
from rest.run import opened, store
from rest.run.command import check_out, refusing
from rest.run.progress import progress
from rest.sampler import Ask, Decoding, Sampler, SamplerConfig
from rest.tasks.chat import Chat
from rest.tasks.problem_set import ProblemSet
from rest.types import Completion, Problem, Task, Tokenizer

# Fields that are flags here, and that a run's are taken of: its table is made
# for more than a few questions.
_CHOICE = ('temperature', 'top_k', 'top_p')
_LENGTHS = ('max_tokens', 'max_prompt_tokens')

_ROWS = 64  # From as many answers on, the sampler plans its table itself.


class AsIs(ProblemSet):
  """No problem set: a question is asked as it is written."""

  name = 'none'
  version = '1'
  verifier = 'exact'
  prompts = ('zero_shot',)

  def message(self, problem: Problem) -> str:
    return problem.question


AS_IS = AsIs(tasks.TaskConfig('none'))


@dataclass(frozen=True, slots=True)
class Source:
  """A model, and how it is asked.

  Attributes:
    name: What people call it.
    model: Its weights.
    tokenizer: Its tokenizer.
    task: Form of the questions.
    config: How long answers may be.
    decoding: How they are drawn.
  """

  name: str
  model: Transformer
  tokenizer: Tokenizer
  task: Task
  config: SamplerConfig
  decoding: Decoding = AS_PUBLISHED


def main(argv: Sequence[str] | None = None) -> None:
  """Runs what the command line says."""
  arguments = _parser().parse_args(argv)
  try:
    with refusing():
      if arguments.num_samples < 1:
        raise ValueError('--num_samples must be 1 or more.')
      config = sharding.MeshConfig(tensor=arguments.tensor)
      mesh = sharding.make_mesh(config)
      if arguments.prompts is None:
        if arguments.out is not None:
          raise ValueError('--out needs --prompts: questions from a file.')
        _converse(_open(arguments, mesh), mesh, arguments)
      else:
        check_out(arguments.out)
        lines = _read(arguments.prompts)
        _answer_lines(_open(arguments, mesh), mesh, arguments, lines)
  except KeyboardInterrupt:
    sys.exit(130)  # As shells number it.


def answer(
  sampler: Sampler,
  codec: Tokenizer,
  task: Task,
  problems: Sequence[Problem],
  num_samples: int,
  first: int = 0,
  **decoding: Any,
) -> Iterator[tuple[int, int, Completion]]:
  """Yields (index of the problem, sample, completion), in order of completion.

  Args:
    sampler: Holds the model, and says how to draw.
    codec: The model's tokenizer.
    task: Form of the questions.
    problems: What is asked.
    num_samples: Answers to each.
    first: Number of the first problem: it names their random numbers.
    **decoding: In place of the sampler's temperature, top_k, top_p, max_tokens.

  Raises:
    ValueError: A prompt is too long.
  """
  parts = [prompt_tokens(task, codec, problem) for problem in problems]
  asks = [
    Ask(first + index, tuple(question), tuple(range(num_samples)))
    for index, (_, question) in enumerate(parts)
  ]
  return sampler.sample(
    parts[0][0], asks, samples=num_samples, stop=task.stop, **decoding
  )


def _open(arguments: argparse.Namespace, mesh: Mesh) -> Source:
  path = epath.Path(arguments.source)
  if (path / 'run.json').exists():
    source = _open_run(arguments, mesh)
  elif (path / 'config.json').exists():
    source = _open_checkpoint(arguments, mesh)
  else:
    raise ValueError(
      f'{path} is neither a run (it has no run.json) nor a Hugging Face '
      'directory (it has no config.json).'
    )
  choice = _given(arguments, _CHOICE)
  return replace(source, decoding=replace(source.decoding, **choice))


def _given(
  arguments: argparse.Namespace, names: Sequence[str]
) -> dict[str, Any]:
  """Returns the flags that were given, of these."""
  values = {name: getattr(arguments, name) for name in names}
  return {name: value for name, value in values.items() if value is not None}


def _open_run(arguments: argparse.Namespace, mesh: Mesh) -> Source:
  run = opened.open_run(arguments.source, arguments.base)
  iteration = run.check(arguments.iteration)
  sampling = store.section(run.record, 'sampling')
  chosen = store.section(run.record, 'estep')
  model = run.load(iteration, mesh)
  task = _task(arguments, run.base) or run.task()
  return Source(
    name=f'{run.workdir}, iteration {iteration}',
    model=model,
    tokenizer=tokenizer.load(run.base, task.turn_end),
    task=task,
    config=SamplerConfig(
      **{name: sampling[name] for name in _LENGTHS}
      | _given(arguments, _LENGTHS)
    ),
    decoding=Decoding(**{name: chosen[name] for name in _CHOICE}),
  )


def _open_checkpoint(arguments: argparse.Namespace, mesh: Mesh) -> Source:
  for name in ('iteration', 'base'):
    if getattr(arguments, name) is not None:
      raise ValueError(
        f'--{name} belongs to runs, and {arguments.source} is a Hugging Face '
        'directory.'
      )
  is_cpu = mesh.devices.flat[0].platform == 'cpu'
  dtype = 'float32' if is_cpu else 'bfloat16'
  context = weights.read_config(arguments.source, dtype).context
  task = _task(arguments, arguments.source) or AS_IS
  usual, half = SamplerConfig(), context // 2
  config = SamplerConfig(
    max_tokens=min(usual.max_tokens, half),
    max_prompt_tokens=min(usual.max_prompt_tokens, half),
  )
  config = replace(config, **_given(arguments, _LENGTHS))
  return Source(
    name=arguments.source,
    model=weights.load(arguments.source, mesh, dtype, config.longest),
    tokenizer=tokenizer.load(arguments.source, task.turn_end),
    task=task,
    config=config,
  )


def _task(arguments: argparse.Namespace, model: str) -> Task | None:
  """Returns the task that was asked for, if any was."""
  if arguments.task in (None, 'none'):
    if arguments.prompt == 'chat':
      return Chat(AsIs(tasks.TaskConfig('none', prompt='chat')), model)
    if arguments.prompt:
      raise ValueError('--prompt needs a --task that it belongs to.')
    return AS_IS if arguments.task else None
  config = tasks.TaskConfig(arguments.task, prompt=arguments.prompt)
  return tasks.for_model(config, model)


def _converse(
  source: Source, mesh: Mesh, arguments: argparse.Namespace
) -> None:
  """Answers one question after another, until there are no more."""
  with contextlib.suppress(ImportError):  # Some Pythons are built without.
    import readline  # noqa: F401  Gives `input` editing and a history.
  config = replace(source.config, rows=arguments.num_samples)
  sampler = _make_sampler(source, config, mesh, arguments.seed)
  print(
    f'{source.name}; questions as {source.task.name} asks them; temperature '
    f'{source.decoding.temperature}. Ctrl-D ends.'
  )
  turn = 0
  while (question := _ask_for_question()) is not None:
    if question.strip():
      problem = Problem(id=str(turn), question=question)
      try:
        _print_answers(source, sampler, problem, arguments.num_samples, turn)
      # Too long, or not of the task's form.
      except (ValueError, FileNotFoundError) as error:
        print(f'error: {error}')
      turn += 1


def _ask_for_question() -> str | None:
  try:
    return input('> ')
  except (EOFError, KeyboardInterrupt):
    print()
    return None


def _print_answers(
  source: Source, sampler: Sampler, problem: Problem, count: int, turn: int
) -> None:
  """Prints each answer as soon as it is drawn."""
  answers = answer(
    sampler, source.tokenizer, source.task, [problem], count, turn
  )
  for _, sample, completion in answers:
    if count > 1:
      print(f'--- {sample + 1} of {count}')
    print(completion.text)
    if not completion.finished:
      print(f'[cut at {len(completion.tokens)} tokens: see --max_tokens]')


def _answer_lines(
  source: Source,
  mesh: Mesh,
  arguments: argparse.Namespace,
  lines: list[dict[str, Any]],
) -> None:
  """Answers all questions of a file, and writes or prints JSON lines."""
  count = arguments.num_samples
  problems = [_problem(fields, i) for i, fields in enumerate(lines)]
  total = count * len(lines)
  # Rows in powers of two, so that files of about one size share programs.
  rows = 1 << (total - 1).bit_length() if total < _ROWS else 0
  config = replace(source.config, rows=rows)
  sampler = _make_sampler(source, config, mesh, arguments.seed)
  drawn: dict[tuple[int, int], Completion] = {}
  with progress(total, 'sampling', 'samples') as bar:
    for index, sample, completion in answer(
      sampler, source.tokenizer, source.task, problems, count
    ):
      drawn[index, sample] = completion
      bar.update()
  text = ''.join(
    _line(lines[index], sample, drawn[index, sample])
    for index, sample in sorted(drawn)
  )
  if arguments.out is None:
    print(text, end='')
    return
  store.write_whole(arguments.out, text)
  print(f'{len(drawn)} answers to {len(lines)} questions in {arguments.out}')


def _make_sampler(
  source: Source, config: SamplerConfig, mesh: Mesh, seed: int
) -> Sampler:
  sampler = Sampler(
    source.model.config, source.tokenizer, config, mesh, seed, source.decoding
  )
  sampler.set_weights(source.model)
  return sampler


def _read(path: str) -> list[dict[str, Any]]:
  """Returns the questions of a file, one object each.

  Raises:
    FileNotFoundError: There is no such file.
    ValueError: It has no questions, or a line that starts like a JSON object is
      not one with a 'question'.
  """
  try:
    text = sys.stdin.read() if path == '-' else epath.Path(path).read_text()
  except UnicodeDecodeError as error:
    raise ValueError(f'{path} is not text: {error}.') from error
  lines = []
  for number, line in enumerate(text.split('\n'), start=1):
    if not line.strip():
      continue
    fields: dict[str, Any] = {'question': line}
    if line.startswith('{'):
      try:
        fields = json.loads(line)
      except json.JSONDecodeError as error:
        raise ValueError(f'{path}, line {number}: {error}.') from error
    if not isinstance(fields.get('question'), str):
      raise ValueError(
        f"{path}, line {number}: expected a text as 'question', got "
        f'{sorted(fields)}.'
      )
    lines.append(fields)
  if not lines:
    raise ValueError(f'{path} has no questions.')
  return lines


def _problem(fields: dict[str, Any], index: int) -> Problem:
  return Problem(
    id=str(fields.get('id', index)),
    question=fields['question'],
    subject=str(fields.get('subject', '')),  # Few-shot examples of bbh's.
  )


def _line(fields: dict[str, Any], sample: int, completion: Completion) -> str:
  drawn = {
    'sample': sample,
    'text': completion.text,
    'finished': completion.finished,
  }
  return json.dumps(fields | drawn, ensure_ascii=False) + '\n'


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='python -m rest.use.sample',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument(
    'source',
    metavar='MODEL_OR_WORKDIR',
    help='a Hugging Face directory, or the directory of a run',
  )
  of_run = parser.add_argument_group('of a run')
  of_run.add_argument(
    '--iteration', type=int, help='whose model (0: the base); default: the last'
  )
  of_run.add_argument(
    '--base', help='where the base model is now, if it has moved'
  )
  asked = parser.add_argument_group('what is asked')
  asked.add_argument('--prompts', metavar='FILE', help="or '-': standard input")
  asked.add_argument(
    '--out', metavar='FILE', help='for the answers; default: standard output'
  )
  asked.add_argument(
    '--task',
    metavar='TASK',
    choices=('none', *sorted(tasks.TASKS)),
    help="form of the questions ('none': as they are); default: the run's",
  )
  asked.add_argument(
    '--prompt',
    default='',
    help='few_shot, zero_shot, ...: of --task, whose usual one is the default',
  )
  drawn = parser.add_argument_group(
    'how answers are drawn (fields of rest/config.py; default: those of the '
    'run, or of the paper)'
  )
  drawn.add_argument('--num_samples', type=int, default=1, help='per question')
  drawn.add_argument('--temperature', type=float, help='0 is greedy')
  drawn.add_argument('--top_k', type=int, help='0: off')
  drawn.add_argument('--top_p', type=float, help='1: off')
  drawn.add_argument('--max_tokens', type=int, help='of an answer')
  drawn.add_argument('--max_prompt_tokens', type=int, help='of a prompt')
  drawn.add_argument('--seed', type=int, default=0)
  drawn.add_argument(
    '--tensor', type=int, default=1, help='devices that share a matrix product'
  )
  return parser


if __name__ == '__main__':
  main()
