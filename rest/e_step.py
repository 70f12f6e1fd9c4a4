"""The E-step: draw solutions to each problem, judge them, keep the right ones.

Verdicts are reached in the pool's interpreters while the next samples are being
drawn. A problem is on disk once all its samples are judged; a run that was
killed draws only the problems that are not.
"""

import hashlib
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from etils import epath
from jax.sharding import Mesh

from rest import processes, store
from rest.fates import fates
from rest.judging import Answers
from rest.keep import EStepConfig, keep, meets_cap, sameness
from rest.live import Live
from rest.sampler import Ask, Sampler
from rest.tally import EStepSummary, Tally, describe
from rest.types import (
  Graded,
  Kept,
  Preempted,
  Problem,
  Task,
  Tokenizer,
)
from rest.verify import Pool, make_request
from rest.verify.answers import EXTRACT


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
    RuntimeError: Too many verdicts could not be reached.
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
  )
  groups = parts.read_all(len(problems))
  if config.rationalize:
    hints = _draw_with_hints(tools, problems, config, parts, folder, title)
    groups = ((*rows, *hints.get(rows[0].problem_id, ())) for rows in groups)
  if processes.is_first():
    summary = _write_dataset(groups, config, folder, max_unknown)
    tools.live.journal.say(f'{title}: {describe(summary, config.cap)}')
  processes.barrier(title)
  return timing


def keep_drawn(
  problems: Sequence[Problem],
  parts: store.Parts,
  tokenizer: Tokenizer,
  config: EStepConfig,
  folder: epath.Path,
  max_unknown: float,
) -> EStepSummary:
  """Makes the dataset of an iteration from samples drawn by another run.

  Args:
    problems: The training problems; those without samples are left out.
    parts: The samples, of which each problem's first `num_samples` count.
    tokenizer: Of the model to train, which need not be that of their author.
    config: What is kept.
    folder: Gets dataset.jsonl and e_step.json.
    max_unknown: As in `e_step`.

  Returns:
    What came of it.
  """
  places = parts.places()

  def rewritten(row: Graded) -> Graded:
    text = tokenizer.encode(row.completion.text, follows=True)
    tokens = (*text, tokenizer.eos[0])
    return replace(row, completion=replace(row.completion, tokens=tokens))

  groups = (
    [rewritten(row) for row in parts.read(places[problem.id])]
    for problem in problems
    if problem.id in places
  )
  first = (rows[: config.num_samples] for rows in groups)
  return _write_dataset(first, config, folder, max_unknown)


def draw_missing(
  tools: Tools,
  problems: Sequence[Problem],
  num_samples: int,
  parts: store.Parts,
  *,
  key: str,
  title: str,
  is_enough: Callable[[Sequence[Graded]], bool] = lambda rows: False,
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
    **decoding: Overrides of the sampler's temperature, top_k, top_p.

  Raises:
    Preempted: `tools.should_stop` said so; what was judged is on disk.
  """
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
  for index, rows in graded:
    parts.write(index, rows)
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


def _write_dataset(
  groups: Iterable[Sequence[Graded]],
  config: EStepConfig,
  folder: epath.Path,
  max_unknown: float,
) -> EStepSummary:
  kept, summary = _filter(groups, config)
  if summary.unknown > max_unknown * summary.sampled:
    raise RuntimeError(
      f'{summary.unknown} of {summary.sampled} verdicts are unknown, more than '
      f'verify.max_unknown={max_unknown} allows: {summary.reasons}. Nothing is '
      'lost: mend the verifier, delete the parts concerned, and run again.'
    )
  store.write_json(folder / 'e_step.json', asdict(summary))
  store.write_dataset(folder / 'dataset.jsonl', kept)
  return summary


def _filter(
  groups: Iterable[Sequence[Graded]], config: EStepConfig
) -> tuple[list[Kept], EStepSummary]:
  kept: list[Kept] = []
  tally = Tally()
  for group in groups:
    rows = [row for row in group if row.sample < config.num_samples]
    hints = [row for row in group if row.sample >= config.num_samples]
    extract = EXTRACT.get(group[0].verdict.verifier.split('-')[0])
    chosen = keep(rows, config, extract)
    samples = {row.sample for row in chosen}
    found = fates(rows, samples, config.cap, sameness(config.distinct))
    if not chosen:
      kept_hints = keep(hints, config, extract)
      chosen = [replace(row, hinted=True) for row in kept_hints]
    kept += chosen
    tally.add(rows, found, hinted=len(chosen) - len(samples))
  return kept, tally.summary()
