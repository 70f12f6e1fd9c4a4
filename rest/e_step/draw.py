"""The E-step: draw solutions to each problem, judge them, keep the right ones.

Verdicts are reached in the pool's interpreters while the next samples are being
drawn. A problem is on disk once all its samples are judged; a run that was
killed draws only the problems that are not.
"""

import hashlib
import time
from collections.abc import (
  Callable,
  Generator,
  Iterable,
  Iterator,
  Sequence,
)
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from etils import epath
from jax.sharding import Mesh

from rest.config import EStepConfig
from rest.e_step.choose import keep, meets_cap, sameness
from rest.e_step.fates import fates
from rest.e_step.summary import EStepSummary, Tally, describe
from rest.e_step.verdicts import Answers
from rest.run import dataset, processes, store
from rest.run.progress import Live
from rest.sampler import Ask, Sampler
from rest.types import Graded, Halted, Kept, Preempted, Problem, Task, Tokenizer
from rest.verify import Pool, make_request
from rest.verify.answers import reader

_ENOUGH_TO_TELL = 1000  # Samples, before their share cut off may end a run.


@dataclass(frozen=True, slots=True)
class Tools:
  """What drawing and judging need; the same for the E-step and evaluation.

  Attributes:
    sampler: Holds the policy.
    mesh: The sampler's: devices of this process.
    pool: Judges.
    task: Says what to ask.
    tokenizer: Of the model.
    should_stop: Whether the run was asked to stop.
    live: Shows and records what goes on.
  """

  sampler: Sampler
  mesh: Mesh
  pool: Pool
  task: Task
  tokenizer: Tokenizer
  should_stop: Callable[[], bool]
  live: Live = field(default_factory=Live)


@dataclass(slots=True)
class Timing:
  """Where the time of drawing and judging went, in seconds."""

  total: float = 0.0
  waiting: float = 0.0  # The device's, for verdicts.
  tokens: int = 0


def e_step(
  tools: Tools,
  problems: Sequence[Problem],
  config: EStepConfig,
  folder: epath.Path,
  iteration: int,
  max_unknown: float,
) -> Timing:
  """Makes the dataset of an iteration from the sampler's current weights.

  Args:
    tools: The sampler holds the policy of the iteration before.
    problems: The training problems, in order.
    config: N, and what is kept.
    folder: Gets parts/ (all samples), dataset.jsonl and e_step.json.
    iteration: Counted from 1; part of every sample's random key.
    max_unknown: Share of unknown verdicts above which this is an error.

  Raises:
    Preempted: `tools.should_stop` said so; what was drawn is on disk.
    Halted: Too many verdicts could not be reached, or too many samples
      were cut off.
  """
  parts = store.Parts(folder / 'parts')
  title = f'iteration {iteration}'
  timing = draw_missing(
    tools,
    problems,
    config.num_samples,
    parts,
    key=title,
    title=title,
    is_enough=lambda rows: meets_cap(rows, config),
    max_cut_off=config.max_cut_off,
  )
  groups = parts.read_all(len(problems))
  if config.rationalize:
    hints = _draw_with_hints(tools, problems, config, parts, folder, title)
    groups = ((*rows, *hints.get(rows[0].problem_id, ())) for rows in groups)
  if processes.is_first():
    summary = _write_dataset(
      groups, tools.tokenizer, config, folder, max_unknown, tools.pool
    )
    tools.live.journal.say(f'{title}: {describe(summary, config.cap)}')
  processes.barrier(title)
  return timing


def keep_drawn(
  problems: Sequence[Problem],
  parts: store.Parts,
  task: Task,
  tokenizer: Tokenizer,
  config: EStepConfig,
  folder: epath.Path,
  max_unknown: float,
  pool: Pool,
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
    pool: Says which answers are equal, where they vote.

  Returns:
    What came of it, and how many samples were left out.
  """
  places = parts.places()
  left_out = 0

  def rewritten(row: Graded, prompt: str) -> Graded | None:
    text = row.completion.text
    tokens = (*tokenizer.encode(text, follows=True), tokenizer.eos[0])
    if not dataset.says(tokenizer, tokens, text):
      return None
    completion = replace(row.completion, tokens=tokens, logprobs=())
    return replace(row, prompt=prompt, completion=completion)

  def groups() -> Iterator[list[Graded]]:
    nonlocal left_out
    for problem in problems:
      if problem.id not in places:
        continue
      prompt = task.question(problem)
      drawn = parts.read(places[problem.id])[: config.num_samples]
      rows = [rewritten(row, prompt) for row in drawn]
      readable = [row for row in rows if row is not None]
      left_out += len(rows) - len(readable)
      if readable:
        yield readable

  summary = _write_dataset(
    groups(), tokenizer, config, folder, max_unknown, pool
  )
  return summary, left_out


def draw_missing(
  tools: Tools,
  problems: Sequence[Problem],
  num_samples: int,
  parts: store.Parts,
  *,
  key: str,
  title: str,
  is_enough: Callable[[Sequence[Graded]], bool] = lambda rows: False,
  max_cut_off: float = 1.0,
  **decoding: Any,
) -> Timing:
  """Draws and judges whatever `parts` does not hold yet, and writes it there.

  Args:
    tools: See `Tools`.
    problems: All problems; their position names their part.
    num_samples: Samples a problem.
    parts: Where they are, and go.
    key: What the samples are for; part of their random keys.
    title: Of the progress bar.
    is_enough: Whether a problem's first samples make further ones needless.
    max_cut_off: Share of samples cut off at the length limit above which to
      stop, as soon as there are enough to tell.
    **decoding: Overrides of the sampler's temperature, top_k, top_p.

  Raises:
    Preempted: `tools.should_stop` said so; what was judged is on disk.
    Halted: Too many samples were cut off; the same holds.
  """
  if processes.is_first():
    for why in parts.mend([problem.id for problem in problems]):
      tools.live.journal.say(f'{title}: {why}')
  processes.barrier(f'{title}, {key}: mended')
  done = parts.done()
  share = processes.mine(range(len(problems)))
  missing = [index for index in share if index not in done]
  timing = Timing()
  started = time.monotonic()
  graded = draw(
    tools,
    problems,
    missing,
    num_samples,
    timing,
    key,
    title,
    is_enough,
    **decoding,
  )
  sampled = cut_off = 0
  for index, rows in graded:
    parts.write(index, rows)
    sampled += len(rows)
    cut_off += sum(not row.completion.finished for row in rows)
    # Problems with short answers come first, so this errs on the late side.
    if sampled >= _ENOUGH_TO_TELL:
      _check_cut_off(cut_off, sampled, max_cut_off)
    if tools.should_stop():
      graded.close()
      raise Preempted(f'while sampling for {title}')
  processes.barrier(f'{title}, {key}: drawn')
  timing.total = time.monotonic() - started
  return timing


def draw(
  tools: Tools,
  problems: Sequence[Problem],
  indices: Sequence[int],
  num_samples: int,
  timing: Timing,
  key: str,
  title: str,
  is_enough: Callable[[Sequence[Graded]], bool] = lambda rows: False,
  **decoding: Any,
) -> Generator[tuple[int, list[Graded]], None, None]:
  """Yields (index, graded samples) of each problem once all are judged.

  Problems come in order of completion, samples in their own. Arguments as in
  `draw_missing`; `timing` is filled on the way.
  """
  if not indices:
    return
  task, tokenizer = tools.task, tools.tokenizer
  prefix, _ = prompt_tokens(task, tokenizer, problems[indices[0]])
  asks = [
    Ask(
      key=random_key(key, problems[index].id),
      tokens=tuple(prompt_tokens(task, tokenizer, problems[index])[1]),
      samples=tuple(range(num_samples)),
    )
    for index in indices
  ]
  answers: dict[int, Answers] = {}  # By position among the indices.
  drawn: set[int] = set()  # All samples drawn, some verdicts still out.
  over: set[int] = set()  # Nothing more is wanted.
  bar = f'{title}: sampling'
  with tools.live.drawing(
    bar, len(asks), num_samples, lambda: tools.pool.stats.waiting
  ) as view:
    for position, sample, completion in tools.sampler.sample(
      prefix,
      asks,
      samples=num_samples,
      withdrawn=over,
      stop=task.stop,
      **decoding,
    ):
      if position in over:
        continue
      problem = problems[indices[position]]
      if position not in answers:
        prompt = task.question(problem)
        answers[position] = Answers(problem, prompt, num_samples, is_enough)
      before = time.monotonic()
      request = make_request(task, problem, completion.text)
      verdict = tools.pool.submit(request)
      timing.waiting += time.monotonic() - before
      timing.tokens += len(completion.tokens)
      view.drawn(len(completion.tokens))
      tools.live.tick()
      if answers[position].add(sample, completion, verdict):
        drawn.add(position)
      for ready in [p for p in {position, *drawn} if answers[p].settle()]:
        over.add(ready)
        drawn.discard(ready)
        rows = answers.pop(ready).judged
        view.judged(rows)
        yield indices[ready], rows
    before = time.monotonic()
    for position, answer in answers.items():
      answer.settle(wait=True)
      view.judged(answer.judged)
      yield indices[position], answer.judged
    timing.waiting += time.monotonic() - before


def prompt_tokens(
  task: Task, tokenizer: Tokenizer, problem: Problem
) -> tuple[list[int], list[int]]:
  """Returns the ids of the shared prefix and of the question."""
  start = [] if tokenizer.bos is None else [tokenizer.bos]
  prefix = start + (tokenizer.encode(task.prefix) if task.prefix else [])
  question = tokenizer.encode(task.question(problem), follows=bool(task.prefix))
  return prefix, question


def random_key(purpose: str, problem_id: str) -> int:
  """Returns 64 bits that name a problem's samples, the same on every host."""
  digest = hashlib.sha256(f'{purpose}\n{problem_id}'.encode()).digest()
  return int.from_bytes(digest[:8], 'big')


def _draw_with_hints(
  tools: Tools,
  problems: Sequence[Problem],
  config: EStepConfig,
  parts: store.Parts,
  folder: epath.Path,
  title: str,
) -> dict[str, list[Graded]]:
  """Asks what has no correct sample again, with the answer in the question.

  Returns the samples by problem; their numbers go on where the others end.
  """
  groups = parts.read_all(len(problems))
  unsolved = [
    hinted(problem)
    for problem, rows in zip(problems, groups, strict=True)
    if not any(row.verdict.reward == 1.0 for row in rows)
  ]
  hints = store.Parts(folder / 'hinted')
  draw_missing(
    tools,
    unsolved,
    config.num_samples,
    hints,
    key=f'{title}, hinted',
    title=f'{title}, with hints',
  )
  return {
    rows[0].problem_id: [
      replace(row, sample=row.sample + config.num_samples) for row in rows
    ]
    for rows in hints.read_all(len(unsolved))
  }


def hinted(problem: Problem) -> Problem:
  """Returns the problem with its answer in the question."""
  question = f'{problem.question} (The answer is {problem.answer}.)'
  return replace(problem, question=question)


def _check_cut_off(cut_off: int, sampled: int, most: float) -> None:
  """Refuses to go on where too many samples do not come to their end."""
  if cut_off > most * sampled:
    raise Halted(
      f'{cut_off:,} of {sampled:,} samples were cut off at the length limit, '
      f'more than estep.max_cut_off={most} allows: only short answers would be '
      'learnt. Raise sampling.max_tokens (in another --workdir), or see in '
      'parts/ whether the model ever writes an end; raise estep.max_cut_off '
      'where this is as it should be. What was drawn is on disk.'
    )


def _write_dataset(
  groups: Iterable[Sequence[Graded]],
  tokenizer: Tokenizer,
  config: EStepConfig,
  folder: epath.Path,
  max_unknown: float,
  pool: Pool,
) -> EStepSummary:
  kept, summary = _filter(groups, config, pool)
  if summary.unknown > max_unknown * summary.sampled:
    raise Halted(
      f'{summary.unknown} of {summary.sampled} verdicts are unknown, more than '
      f'verify.max_unknown={max_unknown} allows: {summary.reasons}. Nothing is '
      'lost: mend the verifier, delete the parts concerned, and run again.'
    )
  _check_cut_off(summary.ended['limit'], summary.sampled, config.max_cut_off)
  store.write_json(folder / 'e_step.json', asdict(summary))
  dataset.write_dataset(folder / 'dataset.jsonl', kept, tokenizer)
  return summary


def _filter(
  groups: Iterable[Sequence[Graded]], config: EStepConfig, pool: Pool
) -> tuple[list[Kept], EStepSummary]:
  kept: list[Kept] = []
  tally = Tally()
  for group in groups:
    rows = [row for row in group if row.sample < config.num_samples]
    hints = [row for row in group if row.sample >= config.num_samples]
    answers = reader(group, pool)
    chosen = keep(rows, config, answers)
    samples = {row.sample for row in chosen}
    found = fates(rows, samples, config.cap, sameness(config.distinct))
    if not chosen:
      kept_hints = keep(hints, config, answers)
      chosen = [replace(row, hinted=True) for row in kept_hints]
    kept += chosen
    tally.add(rows, found, hinted=len(chosen) - len(samples))
  return kept, tally.summary()
