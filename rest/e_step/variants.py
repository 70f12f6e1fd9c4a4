"""E-steps that differ from the paper's: hints, and another run's samples."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from etils import epath

from rest.config import EStepConfig
from rest.e_step.choose import make_dataset
from rest.e_step.draw import Timing, Tools, draw_missing
from rest.e_step.summary import EStepSummary
from rest.run import dataset, store
from rest.types import Completion, Graded, Problem, Task, Tokenizer
from rest.verify.answers import Judge


def add_hinted(
  tools: Tools,
  problems: Sequence[Problem],
  num_samples: int,
  parts: store.Parts,
  folder: epath.Path,
  title: str,
) -> Iterator[list[Graded]]:
  """Asks what has no correct sample again, with the answer in the question.

  Args:
    tools: See `Tools`.
    problems: All problems of the E-step.
    num_samples: Samples a problem, with a hint as without.
    parts: Holds those drawn without.
    folder: Of the iteration; gets hinted/, the others.
    title: Of the iteration.

  Returns:
    All samples by problem; the numbers of the hinted go on where the others
    end.
  """
  groups = parts.read_all(len(problems))
  unsolved = [
    hinted(problem)
    for problem, rows in zip(problems, groups, strict=True)
    if not any(row.verdict.reward == 1.0 for row in rows)
  ]
  hints = draw_missing(
    tools,
    unsolved,
    num_samples,
    store.Parts(folder / 'hinted'),
    Timing(),
    key=f'{title}, hinted',
    title=f'{title}, with hints',
  )
  by_problem = {
    rows[0].problem_id: [
      replace(row, sample=row.sample + num_samples) for row in rows
    ]
    for _, rows in hints
  }
  return (
    [*rows, *by_problem.get(rows[0].problem_id, ())]
    for rows in parts.read_all(len(problems))
  )


def hinted(problem: Problem) -> Problem:
  """Returns the problem with its answer in the question."""
  question = f'{problem.question} (The answer is {problem.answer}.)'
  return replace(problem, question=question)


def keep_drawn(
  problems: Sequence[Problem],
  parts: store.Parts,
  task: Task,
  tokenizer: Tokenizer,
  config: EStepConfig,
  folder: epath.Path,
  max_unknown: float,
  judge: Judge,
) -> tuple[EStepSummary, int]:
  """Makes the dataset of an iteration from samples drawn by another run.

  Their texts are encoded anew, behind this run's own prompts: the model to
  train need not be that of their author. A text that the tokenizer cannot
  write, so that other tokens than those judged would be trained on, is left
  out.

  Args:
    problems: The training problems; those without samples are left out.
    parts: The samples, of which each problem's first `num_samples` count.
    task: This run's, which says how a problem is asked.
    tokenizer: Of the model to train.
    config: What is kept.
    folder: Gets dataset.jsonl and e_step.json.
    max_unknown: As in `e_step`.
    judge: Says which answers are equal, where they vote.

  Returns:
    What came of it, and how many samples were left out.
  """
  indices = {problem.id: index for index, problem in enumerate(problems)}
  left_out = 0

  def rewritten(row: Graded, prompt: str) -> Graded | None:
    completion = encode_anew(row.completion, tokenizer)
    return completion and replace(row, prompt=prompt, completion=completion)

  def groups() -> Iterator[tuple[int, list[Graded]]]:
    nonlocal left_out
    for drawn in parts.read_done():
      index = indices.get(drawn[0].problem_id)
      if index is None:
        continue
      prompt = task.question(problems[index])
      rows = [rewritten(row, prompt) for row in drawn[: config.num_samples]]
      readable = [row for row in rows if row is not None]
      left_out += len(rows) - len(readable)
      if readable:
        yield index, readable

  summary = make_dataset(
    groups(), tokenizer, config, folder, max_unknown, judge
  )
  return summary, left_out


def encode_anew(
  completion: Completion, tokenizer: Tokenizer
) -> Completion | None:
  """Returns a completion in other tokens; None if they cannot say its text."""
  text = completion.text
  end = tokenizer.eos[: completion.finished]
  tokens = (*tokenizer.encode(text, follows=True), *end)
  if not dataset.says(tokenizer, tokens, text):
    return None
  return replace(completion, tokens=tokens, logprobs=())
