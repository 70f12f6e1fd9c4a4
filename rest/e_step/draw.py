"""The E-step: draws solutions to problems, judges them, keeps the right ones.

Verdicts are reached in the pool's interpreters while the next samples are being
drawn. A problem is on disk once all its samples are judged; a run that was
killed draws only the problems that are not.
"""

import hashlib
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from etils import epath
from jax.sharding import Mesh

from rest.config import EStepConfig
from rest.e_step.choose import check_cut_off, make_dataset, meets_cap
from rest.e_step.summary import describe
from rest.e_step.verdicts import Answers
from rest.run import processes, store
from rest.run.progress import Live
from rest.sampler import Ask, Sampler
from rest.types import Graded, Preempted, Problem, Task, Tokenizer
from rest.verify import Pool, make_request

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
  """Where the time of drawing and judging went."""

  waiting: float = 0.0  # Seconds of the device, for verdicts.


class More(Protocol):
  """Draws further samples, with the arguments of `variants.add_hinted`."""

  def __call__(
    self,
    tools: Tools,
    problems: Sequence[Problem],
    num_samples: int,
    parts: store.Parts,
    folder: epath.Path,
    title: str,
    /,
  ) -> Iterator[list[Graded]]:
    """Returns all samples by problem, in order of problem."""
    ...


def e_step(
  tools: Tools,
  problems: Sequence[Problem],
  config: EStepConfig,
  folder: epath.Path,
  iteration: int,
  max_unknown: float,
  more: More | None = None,
) -> Timing:
  """Makes the dataset of an iteration from the sampler's current weights.

  Args:
    tools: The sampler holds the policy of the iteration before.
    problems: The training problems, in order.
    config: N, and what is kept.
    folder: Gets parts/ (all samples), dataset.jsonl and e_step.json.
    iteration: Counted from 1; part of every sample's random key.
    max_unknown: Share of unknown verdicts above which this is an error.
    more: What else is drawn, once all samples are there: see `variants`.

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
  if more:
    groups = more(tools, problems, config.num_samples, parts, folder, title)
  if processes.is_first():
    summary = make_dataset(
      groups, tools.tokenizer, config, folder, max_unknown, tools.pool
    )
    tools.live.journal.say(f'{title}: {describe(summary, config.cap)}')
  processes.barrier(title)
  return timing


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
      check_cut_off(cut_off, sampled, max_cut_off)
    if tools.should_stop():
      graded.close()
      raise Preempted(f'while sampling for {title}')
  processes.barrier(f'{title}, {key}: drawn')
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

  Invariant: each problem with a sample drawn is in `answers` until it is
  yielded, then in `over`, where the sampler sees that nothing more is wanted of
  it; `drawn` is the part of `answers` that only verdicts are missing of, and is
  looked at again with every sample that comes.

  Example: of two problems with two samples each come 0/0, 1/0, 0/1, 1/1. At
  0/1 problem 0 is drawn; if its verdicts are there it is yielded at once, else
  at 1/1, or behind the loop, which waits for them.
  """
  if not indices:
    return
  asked = [problems[index] for index in indices]
  prefix, asks = _asks(tools, asked, num_samples, key)
  answers: dict[int, Answers] = {}  # By position among those asked.
  drawn: set[int] = set()  # All samples drawn, some verdicts still out.
  over: set[int] = set()  # Nothing more is wanted.
  bar, pool = f'{title}: sampling', tools.pool
  with tools.live.drawing(
    bar, len(asks), num_samples, lambda: pool.stats.waiting
  ) as view:
    for position, sample, completion in tools.sampler.sample(
      prefix,
      asks,
      samples=num_samples,
      withdrawn=over,
      stop=tools.task.stop,
      **decoding,
    ):
      if position in over:
        continue
      problem = asked[position]
      if position not in answers:
        prompt = tools.task.question(problem)
        answers[position] = Answers(problem, prompt, num_samples, is_enough)
      before = time.monotonic()
      request = make_request(tools.task, problem, completion.text)
      verdict = pool.submit(request)  # Waits where the queue is full.
      timing.waiting += time.monotonic() - before
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


def _asks(
  tools: Tools, problems: Sequence[Problem], num_samples: int, key: str
) -> tuple[list[int], list[Ask]]:
  """Returns the shared prefix, and what is asked of the sampler."""
  prompts = [prompt_tokens(tools.task, tools.tokenizer, p) for p in problems]
  asks = [
    Ask(
      key=random_key(key, problem.id),
      tokens=tuple(question),
      samples=tuple(range(num_samples)),
    )
    for problem, (_, question) in zip(problems, prompts, strict=True)
  ]
  return prompts[0][0], asks
