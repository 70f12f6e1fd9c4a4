"""What the M-step of an iteration trains on."""

import dataclasses
from collections import defaultdict

import numpy as np

from rest.e_step.draw import prompt_tokens
from rest.loop import Run
from rest.m_step.packing import Example
from rest.run import dataset
from rest.run.opened import iteration_folder
from rest.types import Kept, Problem


def asked(run: Run, iteration: int) -> list[Problem]:
  """Returns the training problems that an iteration asks, in order."""
  problems = run.tools.task.problems('train')
  size = run.em.problems_per_iteration
  if not size:
    return problems
  epoch, turn = divmod(iteration - 1, len(problems) // size)
  order = np.random.default_rng([run.seed, epoch]).permutation(len(problems))
  return [problems[i] for i in sorted(order[turn * size : (turn + 1) * size])]


def training_examples(run: Run, iteration: int) -> list[Example]:
  """Returns what the M-step of an iteration trains on, in a fixed order.

  A solution that does not fit into a training row is left out, and the log says
  so: what was sampled for a week must not end in an error for one of them.
  """
  problems = {p.id: p for p in run.tools.task.problems('train')}
  # By problem and tokens: iterations may have drawn the same text.
  rows: dict[tuple[str, tuple[int, ...]], float] = {}
  if run.em.source != 'human':
    first = 1 if run.em.accumulate else iteration
    for index in range(first, iteration + 1):
      path = iteration_folder(run.workdir, index) / 'dataset.jsonl'
      kept = dataset.read_dataset(path)
      dataset.check(kept, run.tools.tokenizer, path)
      for row in kept:
        _check_prompt(run, problems[row.problem_id], row)
        rows.setdefault((row.problem_id, row.tokens), row.weight)
  if run.em.source == 'human' or run.em.include_human:
    for problem in problems.values():
      if problem.solution is not None:
        rows.setdefault((problem.id, human_tokens(run, problem)), 1.0)
  examples = {
    key: Example(training_prompt(run, problems[key[0]]), key[1], weight)
    for key, weight in rows.items()
  }
  limit = run.mstep.row_length
  fitting = {k: e for k, e in examples.items() if e.length <= limit}
  if examples and not fitting:
    shortest = min(example.length for example in examples.values())
    raise ValueError(
      f'None of {len(examples):,} solutions fits into a training row: the '
      f'shortest takes {shortest} positions, and mstep.row_length is {limit}. '
      'Raise it.'
    )
  if len(fitting) < len(examples):
    run.tools.live.journal.say(
      f'{len(examples) - len(fitting):,} of {len(examples):,} solutions are '
      f'left out: longer than a training row (mstep.row_length={limit})'
    )
  if run.em.problem_weight != 'uniform':
    return [*fitting.values()]
  sums: defaultdict[str, float] = defaultdict(float)
  for (problem_id, _), example in fitting.items():
    sums[problem_id] += example.weight
  return [
    dataclasses.replace(example, weight=example.weight / sums[problem_id])
    for (problem_id, _), example in fitting.items()
  ]


def _check_prompt(run: Run, problem: Problem, row: Kept) -> None:
  """Refuses a solution to another question than the one it is trained on."""
  prompt = run.tools.task.question(problem)
  if row.prompt != prompt and not row.hinted:
    raise ValueError(
      f'Problem {row.problem_id!r}, sample {row.sample}: it was asked as '
      f'{row.prompt[-200:]!r}, but would be trained on as {prompt[-200:]!r}. '
      'The problem set or its prompt has changed since it was sampled.'
    )


def human_tokens(run: Run, problem: Problem) -> tuple[int, ...]:
  """Returns the human solution, with the token that ends it."""
  tokenizer = run.tools.tokenizer
  text = run.tools.task.target(problem)
  return (*tokenizer.encode(text, follows=True), tokenizer.eos[0])


def training_prompt(run: Run, problem: Problem) -> tuple[int, ...]:
  """Returns what stands before a solution in training."""
  tokenizer = run.tools.tokenizer
  prefix, question = prompt_tokens(run.tools.task, tokenizer, problem)
  if run.em.train_prompt == 'zero_shot':
    prefix = prefix[: 0 if tokenizer.bos is None else 1]
  return (*prefix, *question)
