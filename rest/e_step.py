"""The E-step: draw solutions to each problem, judge them, keep the right ones.

Verdicts are reached in the pool's interpreters while the next samples are being
drawn. A problem is on disk once all its samples are judged; a run that was
killed draws only the problems that are not.
"""

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, replace
from typing import Any

from etils import epath
from jax.sharding import Mesh

from rest import metrics, processes, store
from rest.keep import EStepConfig, keep
from rest.sampler import Ask, Sampler
from rest.types import (
  Completion,
  Graded,
  Kept,
  Preempted,
  Problem,
  Task,
  Tokenizer,
  Verdict,
)
from rest.verify import Pool, Request
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
  """

  sampler: Sampler
  mesh: Mesh
  pool: Pool
  task: Task
  tokenizer: Tokenizer
  should_stop: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class EStepSummary:
  """What came of an E-step.

  Attributes:
    problems: Problems asked.
    sampled: Samples drawn.
    correct: Samples judged correct.
    unknown: Samples without a verdict, never trained on.
    finished: Samples that ended within the length limit.
    kept: Solutions in the dataset.
    hinted: Of them, those whose question held the answer.
    solved: Problems with a correct sample in the dataset, drawn without a hint.
    kept_per_problem: How many problems have 0, 1, 2, ... kept solutions.
    reasons: Verdicts by reason.
    mean_tokens: Mean length of a sample.
  """

  problems: int
  sampled: int
  correct: int
  unknown: int
  finished: int
  kept: int
  hinted: int
  solved: int
  kept_per_problem: dict[str, int]
  reasons: dict[str, int]
  mean_tokens: float


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
  )
  groups = parts.read_all(len(problems))
  if config.rationalize:
    hints = _draw_with_hints(tools, problems, config, parts, folder, title)
    groups = ((*rows, *hints.get(rows[0].problem_id, ())) for rows in groups)
  if processes.is_first():
    _write_dataset(groups, config, folder, max_unknown)
  processes.barrier(title)
  return timing


def keep_drawn(
  problems: Sequence[Problem],
  parts: store.Parts,
  tokenizer: Tokenizer,
  config: EStepConfig,
  folder: epath.Path,
  max_unknown: float,
) -> None:
  """Makes the dataset of an iteration from samples drawn by another run.

  Args:
    problems: The training problems; those without samples are left out.
    parts: The samples, of which each problem's first `num_samples` count.
    tokenizer: Of the model to train, which need not be that of their author.
    config: What is kept.
    folder: Gets dataset.jsonl and e_step.json.
    max_unknown: As in `e_step`.
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
  _write_dataset(first, config, folder, max_unknown)


def draw_missing(
  tools: Tools,
  problems: Sequence[Problem],
  num_samples: int,
  parts: store.Parts,
  *,
  key: str,
  title: str,
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
    tools, problems, missing, num_samples, timing, key, title, **decoding
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
  **decoding: Any,
) -> Generator[tuple[int, list[Graded]], None, None]:
  """Yields (index, graded samples) of each problem once all are judged.

  Problems come in order of completion. Arguments as in `draw_missing`; `timing`
  is filled on the way.
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
  judged: dict[int, list[tuple[int, Completion, Future[Verdict]]]] = {}
  drawn: list[int] = []  # All samples drawn, some verdicts still out.
  with (
    metrics.progress(len(asks) * num_samples, f'{title}: sampling') as sampled,
    metrics.progress(
      len(asks) * num_samples, f'{title}: verifying'
    ) as verified,
  ):
    for position, sample, completion in tools.sampler.sample(
      prefix, asks, samples=num_samples, stop=task.stop, **decoding
    ):
      index = indices[position]
      before = time.monotonic()
      future = tools.pool.submit(_request(task, problems[index], completion))
      timing.waiting += time.monotonic() - before
      timing.tokens += len(completion.tokens)
      sampled.update()
      judged.setdefault(index, []).append((sample, completion, future))
      if len(judged[index]) == num_samples:
        drawn.append(index)
      for ready in [i for i in drawn if _all_done(judged[i])]:
        drawn.remove(ready)
        verified.update(num_samples)
        yield ready, _graded(task, problems[ready], judged.pop(ready))
    before = time.monotonic()
    for index in drawn:
      rows = _graded(task, problems[index], judged.pop(index))
      verified.update(num_samples)
      yield index, rows
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


def _all_done(rows: list[tuple[int, Completion, Future[Verdict]]]) -> bool:
  return all(future.done() for _, _, future in rows)


def _graded(
  task: Task,
  problem: Problem,
  rows: list[tuple[int, Completion, Future[Verdict]]],
) -> list[Graded]:
  prompt = task.question(problem)
  return [
    Graded(problem.id, sample, prompt, completion, future.result())
    for sample, completion, future in rows
  ]


def _request(task: Task, problem: Problem, completion: Completion) -> Request:
  if task.verifier == 'program':
    text = task.program(problem, completion.text)
    return Request('program', text, tests=problem.tests)
  return Request(task.verifier, completion.text, gold=problem.answer or '')


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
    replace(problem, question=_hinted(problem))
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


def _hinted(problem: Problem) -> str:
  return f'{problem.question} (The answer is {problem.answer}.)'


def _write_dataset(
  groups: Iterable[Sequence[Graded]],
  config: EStepConfig,
  folder: epath.Path,
  max_unknown: float,
) -> None:
  kept, summary = _filter(groups, config)
  if summary.unknown > max_unknown * summary.sampled:
    raise RuntimeError(
      f'{summary.unknown} of {summary.sampled} verdicts are unknown, more than '
      f'verify.max_unknown={max_unknown} allows: {summary.reasons}. Nothing is '
      'lost: mend the verifier, delete the parts concerned, and run again.'
    )
  store.write_json(folder / 'e_step.json', asdict(summary))
  store.write_dataset(folder / 'dataset.jsonl', kept)


def _filter(
  groups: Iterable[Sequence[Graded]], config: EStepConfig
) -> tuple[list[Kept], EStepSummary]:
  kept: list[Kept] = []
  solved = hinted = 0
  sizes: Counter[int] = Counter()
  reasons: Counter[str] = Counter()
  rewards: Counter[float | None] = Counter()
  tokens = finished = 0
  for group in groups:
    rows = [row for row in group if row.sample < config.num_samples]
    hints = [row for row in group if row.sample >= config.num_samples]
    extract = EXTRACT.get(group[0].verdict.verifier.split('-')[0])
    chosen = keep(rows, config, extract)
    right = {row.sample for row in rows if row.verdict.reward == 1.0}
    solved += any(row.sample in right for row in chosen)
    if not chosen:
      kept_hints = keep(hints, config, extract)
      chosen = [replace(row, hinted=True) for row in kept_hints]
      hinted += len(chosen)
    kept += chosen
    sizes[len(chosen)] += 1
    reasons.update(row.verdict.reason for row in rows)
    rewards.update(row.verdict.reward for row in rows)
    tokens += sum(len(row.completion.tokens) for row in rows)
    finished += sum(row.completion.finished for row in rows)
  sampled = sum(rewards.values())
  summary = EStepSummary(
    problems=sizes.total(),
    sampled=sampled,
    correct=rewards[1.0],
    unknown=rewards[None],
    finished=finished,
    kept=len(kept),
    hinted=hinted,
    solved=solved,
    kept_per_problem={str(size): sizes[size] for size in sorted(sizes)},
    reasons=dict(reasons.most_common()),
    mean_tokens=round(tokens / max(1, sampled), 2),
  )
  return kept, summary
