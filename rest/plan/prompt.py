"""A prompt as the model will see it, where its completions end, and traps."""

from collections.abc import Iterator, Sequence

from rest.e_step.draw import prompt_tokens
from rest.model import tokenizer
from rest.plan.world import Run
from rest.tasks.chat import Form, read_form
from rest.types import Task, Tokenizer


def describe(run: Run) -> list[str]:
  """Returns lines about the prompt of the first training problem."""
  task, codec = run.world.task, run.world.tokenizer
  path, limit = run.config.model.path, run.config.sampling.max_tokens
  problem = task.problems('train')[0]
  prefix, question = prompt_tokens(task, codec, problem)
  tokens = [*prefix, *question]
  own = tokenizer.load(path)
  try:
    form = read_form(path, run.config.task.system, ())
  except ValueError:  # Only a chat needs a template, and then it has one.
    form = None
  ends = [f'{codec.decode([i])!r} (end token {i})' for i in codec.eos]
  ends += [f'{text!r} (stop text of {task.name})' for text in task.stop]
  return [
    f'prompt    of {problem.id}, {len(tokens)} tokens, {len(prefix)} of them '
    'shared by all:',
    *(f'          | {line}' for line in codec.decode(tokens).split('\n')),
    f'ends      at {", ".join(ends)}, or after {limit} tokens '
    '(sampling.max_tokens)',
    *(f'warning   {text}' for text in warnings(task, tokens, own, form)),
  ]


def warnings(
  task: Task, tokens: Sequence[int], own: Tokenizer, form: Form | None
) -> Iterator[str]:
  """Yields what usually goes wrong with prompts.

  Args:
    task: Says how problems are asked.
    tokens: A prompt.
    own: The model's tokenizer, with its own end tokens alone.
    form: Of the model's chat template; None where it has none.
  """
  if own.bos is not None and [*tokens[:2]] == [own.bos] * 2:
    yield f'the prompt has two begin tokens, {own.decode([own.bos])!r}.'
  if form is None:
    return
  ends = [own.decode([i]) for i in own.eos]
  is_taught = form.turn_end in ends
  if not task.turn_end:
    if is_taught and task.stop:
      yield (
        'the model was taught to end a turn, and may never write the stop '
        "texts: task.prompt='chat' asks it in its own form."
      )
    return
  if not is_taught:
    yield (
      f'the model itself ends at {", ".join(map(repr, ends))}, not at the end '
      f'of a turn, {form.turn_end!r}: it may be a base model, which was never '
      'taught to answer in turns.'
    )
  if form.missing_head:
    yield (
      "the chat template does not begin the answer's turn: the model has to "
      f'write {form.missing_head!r} itself.'
    )
