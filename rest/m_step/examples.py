"""What the M-step of an iteration trains on."""

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from etils import epath

from rest.config import EMConfig
from rest.e_step.draw import prefix_tokens, question_tokens
from rest.m_step.stored import Stored
from rest.run import dataset
from rest.run.opened import iteration_folder
from rest.run.spool import Spool
from rest.types import Kept, Problem, Task, Tokenizer

# A problem, the tokens that answer it, and their weight.
_Solution = tuple[str, tuple[int, ...], float]


def asked(task: Task, em: EMConfig, seed: int, iteration: int) -> list[Problem]:
  """Returns the training problems that an iteration asks, in order."""
  problems = task.problems('train')
  size = em.problems_per_iteration
  if not size:
    return problems
  epoch, turn = divmod(iteration - 1, len(problems) // size)
  order = np.random.default_rng([seed, epoch]).permutation(len(problems))
  return [problems[i] for i in sorted(order[turn * size : (turn + 1) * size])]


def training_examples(
  disk: Spool,
  workdir: epath.Path,
  task: Task,
  tokenizer: Tokenizer,
  em: EMConfig,
  row_length: int,
  iteration: int,
  say: Callable[[str], None],
) -> Stored:
  """Returns what the M-step of an iteration trains on, in a fixed order.

  A solution that does not fit into a training row is left out, and the log says
  so: what was sampled for a week must not end in an error for one of them.

  Args:
    disk: Gets their tokens.
    workdir: Has the datasets of all iterations so far.
    task: Says how a problem is asked, and what people answered.
    tokenizer: Of the model.
    em: Which of the datasets, and of the human solutions, are trained on.
    row_length: Positions in a training row.
    iteration: Counted from 1.
    say: Writes a line to the log.

  Raises:
    ValueError: A solution is not of this task or tokenizer; or none fits.
  """
  problems = {p.id: p for p in task.problems('train')}
  examples = Stored(disk, training_prefix(task, tokenizer, em.train_prompt))
  asked: dict[str, tuple[int, int, int]] = {}  # Number, question, its tokens.
  questions: dict[int, int] = {}  # Problems may ask the same.
  known: set[int] = set()  # Iterations may have drawn the same text.
  owners = array('q')  # Of each example, the number of its problem.
  too_long: list[int] = []
  solutions = _solutions(workdir, problems, task, tokenizer, em, iteration)
  for problem_id, tokens, weight in solutions:
    if problem_id not in asked:
      ids = question_tokens(task, tokenizer, problems[problem_id])
      same = hash(tuple(ids))  # Of integers: alike in all processes.
      if same not in questions:
        questions[same] = examples.ask(ids)
      asked[problem_id] = len(asked), questions[same], len(ids)
    number, question, size = asked[problem_id]
    solution = hash((number, tokens))
    if solution in known:
      continue
    known.add(solution)
    length = len(examples.prefix) + size + len(tokens) - 1
    if length > row_length:
      too_long.append(length)
      continue
    examples.add(question, tokens, weight)
    owners.append(number)
  _tell(examples, too_long, row_length, say)
  if em.problem_weight == 'uniform' and examples:
    sums = np.bincount(owners, examples.weights)
    examples.weights = array('d', np.array(examples.weights) / sums[owners])
  return examples


def human_tokens(
  task: Task, tokenizer: Tokenizer, problem: Problem
) -> tuple[int, ...]:
  """Returns the human solution, with the token that ends it."""
  ids = tokenizer.encode(task.target(problem), follows=True)
  return (*ids, tokenizer.eos[0])


def training_prefix(
  task: Task, tokenizer: Tokenizer, train_prompt: str
) -> tuple[int, ...]:
  """Returns what all prompts begin with in training."""
  prefix = tuple(prefix_tokens(task, tokenizer))
  if train_prompt == 'zero_shot':
    return prefix[: 0 if tokenizer.bos is None else 1]
  return prefix


def _solutions(
  workdir: epath.Path,
  problems: Mapping[str, Problem],
  task: Task,
  tokenizer: Tokenizer,
  em: EMConfig,
  iteration: int,
) -> Iterator[_Solution]:
  """Yields all solutions: the model's own, then people's."""
  if em.source != 'human':
    first = 1 if em.accumulate else iteration
    for index in range(first, iteration + 1):
      path = iteration_folder(workdir, index) / 'dataset.jsonl'
      for row in dataset.read_dataset(path):
        dataset.check([row], tokenizer, path)
        _check_prompt(task, problems[row.problem_id], row)
        yield row.problem_id, row.tokens, row.weight
  if em.source == 'human' or em.include_human:
    for problem in problems.values():
      if problem.solution is not None:
        yield problem.id, human_tokens(task, tokenizer, problem), 1.0


def _tell(
  examples: Stored,
  too_long: Sequence[int],
  row_length: int,
  say: Callable[[str], None],
) -> None:
  """Says what a training row cannot hold; raises if it is all there is."""
  count = len(examples) + len(too_long)
  if too_long and not examples:
    raise ValueError(
      f'None of {count:,} solutions fits into a training row: the '
      f'shortest takes {min(too_long)} positions, and mstep.row_length is '
      f'{row_length}. Raise it.'
    )
  if too_long:
    say(
      f'{len(too_long):,} of {count:,} solutions are left out: longer than a '
      f'training row (mstep.row_length={row_length})'
    )


def _check_prompt(task: Task, problem: Problem, row: Kept) -> None:
  """Refuses a solution to another question than the one it is trained on."""
  prompt = task.question(problem)
  if row.prompt != prompt and not row.hinted:
    raise ValueError(
      f'Problem {row.problem_id!r}, sample {row.sample}: it was asked as '
      f'{row.prompt[-200:]!r}, but would be trained on as {prompt[-200:]!r}. '
      'The problem set or its prompt has changed since it was sampled.'
    )
