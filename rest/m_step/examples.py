"""What the M-step of an iteration trains on."""

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Mapping

import numpy as np
from etils import epath

from rest.config import EMConfig
from rest.e_step.draw import prefix_tokens, question_tokens
from rest.m_step.packing import Example
from rest.run import dataset
from rest.run.opened import iteration_folder
from rest.types import Kept, Problem, Task, Tokenizer

# A problem, and the tokens that answer it.
_Solution = tuple[str, tuple[int, ...]]


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
  workdir: epath.Path,
  task: Task,
  tokenizer: Tokenizer,
  em: EMConfig,
  row_length: int,
  iteration: int,
  say: Callable[[str], None],
) -> list[Example]:
  """Returns what the M-step of an iteration trains on, in a fixed order.

  A solution that does not fit into a training row is left out, and the log says
  so: what was sampled for a week must not end in an error for one of them.

  Args:
    workdir: Has the datasets of all iterations so far.
    task: Says how a problem is asked, and what people answered.
    tokenizer: Of the model.
    em: Which of the datasets, and of the human solutions, are trained on.
    row_length: Positions in a training row.
    iteration: Counted from 1.
    say: Writes a line to the log.
  """
  problems = {p.id: p for p in task.problems('train')}
  solutions = _solutions(workdir, problems, task, tokenizer, em, iteration)
  prefix = training_prefix(task, tokenizer, em.train_prompt)
  questions = {
    problem_id: tuple(question_tokens(task, tokenizer, problems[problem_id]))
    for problem_id in dict.fromkeys(problem_id for problem_id, _ in solutions)
  }
  examples = {
    (problem_id, tokens): Example(questions[problem_id], tokens, weight, prefix)
    for (problem_id, tokens), weight in solutions.items()
  }
  examples = _fitting(examples, row_length, say)
  if em.problem_weight != 'uniform':
    return [*examples.values()]
  sums: defaultdict[str, float] = defaultdict(float)
  for (problem_id, _), example in examples.items():
    sums[problem_id] += example.weight
  return [
    dataclasses.replace(example, weight=example.weight / sums[problem_id])
    for (problem_id, _), example in examples.items()
  ]


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
) -> dict[_Solution, float]:
  """Returns the weight of each solution: the model's own, then people's."""
  # By problem and tokens: iterations may have drawn the same text.
  weights: dict[_Solution, float] = {}
  if em.source != 'human':
    first = 1 if em.accumulate else iteration
    for index in range(first, iteration + 1):
      path = iteration_folder(workdir, index) / 'dataset.jsonl'
      kept = dataset.read_dataset(path)
      dataset.check(kept, tokenizer, path)
      for row in kept:
        _check_prompt(task, problems[row.problem_id], row)
        weights.setdefault((row.problem_id, row.tokens), row.weight)
  if em.source == 'human' or em.include_human:
    for problem in problems.values():
      if problem.solution is not None:
        tokens = human_tokens(task, tokenizer, problem)
        weights.setdefault((problem.id, tokens), 1.0)
  return weights


def _fitting(
  examples: Mapping[_Solution, Example],
  row_length: int,
  say: Callable[[str], None],
) -> dict[_Solution, Example]:
  """Returns the examples that a training row can hold; raises if none can."""
  fitting = {k: e for k, e in examples.items() if e.length <= row_length}
  if examples and not fitting:
    shortest = min(example.length for example in examples.values())
    raise ValueError(
      f'None of {len(examples):,} solutions fits into a training row: the '
      f'shortest takes {shortest} positions, and mstep.row_length is '
      f'{row_length}. Raise it.'
    )
  if len(fitting) < len(examples):
    say(
      f'{len(examples) - len(fitting):,} of {len(examples):,} solutions are '
      f'left out: longer than a training row (mstep.row_length={row_length})'
    )
  return fitting


def _check_prompt(task: Task, problem: Problem, row: Kept) -> None:
  """Refuses a solution to another question than the one it is trained on."""
  prompt = task.question(problem)
  if row.prompt != prompt and not row.hinted:
    raise ValueError(
      f'Problem {row.problem_id!r}, sample {row.sample}: it was asked as '
      f'{row.prompt[-200:]!r}, but would be trained on as {prompt[-200:]!r}. '
      'The problem set or its prompt has changed since it was sampled.'
    )
