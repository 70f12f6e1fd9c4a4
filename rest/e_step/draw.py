"""The E-step: draws solutions to problems, judges them, keeps the right ones.

Samples become text, verdicts and files in other processes (`grader.py`) while
the next are being drawn. A problem is on disk once all its samples are judged;
a run that was killed draws only the problems that are not.
"""

import contextlib
import functools
import hashlib
import time
from array import array
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from etils import epath
from jax.sharding import Mesh

from rest.config import EStepConfig
from rest.e_step.choose import check_cut_off, make_dataset
from rest.e_step.ending import Ending
from rest.e_step.grader import Sample, Work
from rest.e_step.graders import Graders
from rest.e_step.summary import describe
from rest.model.sharding import in_step
from rest.run import processes, store
from rest.run.progress import Drawing, Live
from rest.sampler import Ask, Sampler
from rest.sampler.order import Sampled
from rest.types import Graded, Problem, Task, Tokenizer

_ENOUGH_TO_TELL = 1000  # Samples, before their share cut off may end a run.


@dataclass(frozen=True, slots=True)
class Tools:
  """What drawing and judging need; the same for the E-step and evaluation.

  Attributes:
    sampler: Holds the policy.
    mesh: The sampler's.
    graders: Judge.
    task: Says what to ask.
    tokenizer: Of the model.
    should_stop: Whether the run was asked to stop.
    live: Shows and records what goes on.
  """

  sampler: Sampler
  mesh: Mesh
  graders: Graders
  task: Task
  tokenizer: Tokenizer
  should_stop: Callable[[], bool]
  live: Live = field(default_factory=Live)


@dataclass(slots=True)
class Timing:
  """Where the time of drawing and judging went."""

  waiting: float = 0.0  # Seconds of the device, for graders.


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
  timing = Timing()
  groups: Iterable[tuple[int, Sequence[Graded]]] = draw_missing(
    tools,
    problems,
    config.num_samples,
    parts,
    timing,
    key=title,
    title=title,
    enough=config if config.stop_at_cap else None,
    max_cut_off=config.max_cut_off,
  )
  if more:
    deque(groups, maxlen=0)
    groups = enumerate(
      more(tools, problems, config.num_samples, parts, folder, title)
    )
  if processes.is_first():
    summary = make_dataset(
      groups, tools.tokenizer, config, folder, max_unknown, tools.graders
    )
    tools.live.journal.say(f'{title}: {describe(summary, config.cap)}')
  elif not more:
    deque(groups, maxlen=0)  # Draws this process's share.
  processes.barrier(title)
  return timing


def draw_missing(
  tools: Tools,
  problems: Sequence[Problem],
  num_samples: int,
  parts: store.Parts,
  timing: Timing,
  *,
  key: str,
  title: str,
  enough: EStepConfig | None = None,
  max_cut_off: float = 1.0,
  **decoding: Any,
) -> Iterator[tuple[int, list[Graded]]]:
  """Draws and judges whatever `parts` does not hold yet, and writes it there.

  Args:
    tools: See `Tools`.
    problems: All problems; their position names their part.
    num_samples: Samples a problem.
    parts: Where they are, and go.
    timing: Is filled.
    key: What the samples are for; part of their random keys.
    title: Of the progress bar.
    enough: See `Work`.
    max_cut_off: Share of samples cut off at the length limit above which to
      stop, as soon as there are enough to tell.
    **decoding: Overrides of the sampler's temperature, top_k, top_p.

  Returns:
    To be run through by all processes. To the first comes each problem's
    index, and its samples: what is on disk, what it draws, in order of
    completion, and what others drew. To others comes what they draw.

  Raises:
    Preempted: `tools.should_stop` said so; what was judged is on disk.
    Halted: Too many samples were cut off; the same holds.
  """
  first = processes.is_first()
  known: set[int] = set()
  if first:  # Read once: what is whole is used, what is not is drawn again.
    for index, rows in parts.read_whole(
      [problem.id for problem in problems],
      lambda why: tools.live.journal.say(f'{title}: {why}'),
    ):
      known.add(index)
      yield index, rows
  processes.barrier(f'{title}, {key}: read')
  done = parts.done()
  lacks = np.zeros(len(problems), bool)
  for index in processes.mine(range(len(problems))):
    lacks[index] = index not in done
  # Of a share its own process is asked: others may see its files late.
  missing = np.flatnonzero(processes.any_says(lacks)).tolist()
  drawn = draw(
    tools,
    problems,
    missing,
    num_samples,
    timing,
    key,
    title,
    parts,
    enough,
    **decoding,
  )
  sampled = cut_off = 0
  with contextlib.closing(drawn):
    for index, rows in drawn:
      sampled += len(rows)
      cut_off += sum(not row.finished for row in rows)
      # Problems with short answers come first, so this errs on the late side.
      if sampled >= _ENOUGH_TO_TELL:
        check_cut_off(cut_off, sampled, max_cut_off)
      yield index, rows
  processes.barrier(f'{title}, {key}: drawn')
  if first:  # What others drew.
    own = processes.mine(missing)
    others = sorted(set(range(len(problems))).difference(known, own))
    yield from zip(others, parts.read_each(others), strict=True)


def draw(
  tools: Tools,
  problems: Sequence[Problem],
  indices: Sequence[int],
  num_samples: int,
  timing: Timing,
  key: str,
  title: str,
  parts: store.Parts | None = None,
  enough: EStepConfig | None = None,
  **decoding: Any,
) -> Generator[tuple[int, list[Graded]], None, None]:
  """Yields (index, graded samples) of each problem once all are judged.

  To each process come those of its share. They come in order of completion,
  samples in their own; they are on disk where `parts` is given. Other arguments
  as in `draw_missing`, and `indices` is the same on all processes that sample
  in step: each of them draws it all, and throws away what is others'.

  Invariant: a problem is known to the graders once its first sample was sent;
  once it is yielded it is settled, and nothing more of it is sent; the sampler
  sees that it is withdrawn.

  Example: of two problems with two samples each come 0/0, 1/0, 0/1, 1/1. With
  0/1 all of problem 0 is sent; it is yielded with the first call by whose end
  its verdicts are there, or behind the loop, which waits for them.
  """
  share = processes.mine(indices)
  if not in_step(tools.mesh):
    indices = share
  if not indices:
    return
  asked = [problems[index] for index in indices]
  prefix, asks = _asks(tools, asked, num_samples, key)
  places = {index: place for place, index in enumerate(indices)}
  sent: set[int] = set()  # Problems, by place, that the graders know.
  own = {places[index] for index in share}
  ending = Ending(tools.mesh, len(asks), own, tools.should_stop, title)
  folder = None if parts is None else parts.folder
  work = Work(tools.task, num_samples, enough, folder)

  def to_grade(sampled: Sampled) -> Sample:
    place = sampled.ask
    problem = None if place in sent else asked[place]
    sent.add(place)
    tokens = sampled.tokens_T.astype(np.int32).tobytes()
    return Sample(indices[place], problem, sampled.sample, tokens)

  grading = tools.graders.grading(work)
  with tools.live.drawing(
    f'{title}: sampling', len(share), num_samples, lambda: grading.unjudged
  ) as view:
    calls = tools.sampler.draw(
      prefix,
      asks,
      samples=num_samples,
      withdrawn=ending.withdrawn,
      stop=tools.task.stop,
      **decoding,
    )
    for call in calls:
      wanted = [sampled for sampled in call if ending.wants(sampled.ask)]
      before = time.monotonic()
      grading.send(map(to_grade, wanted))
      timing.waiting += time.monotonic() - before
      view.drawn([len(sampled.tokens_T) for sampled in wanted])
      tools.live.tick()
      for done in grading.settled():
        ending.settle(places[done.index])
        yield done.index, _judged(tools, view, done.rows)
        ending.after_problem()
      ending.after_call()
    before = time.monotonic()
    for done in grading.finish():
      yield done.index, _judged(tools, view, done.rows)
      ending.after_problem()
    timing.waiting += time.monotonic() - before


def prepare(tools: Tools, num_samples: int, **decoding: Any) -> None:
  """Has the programs of a `draw` compiled behind whatever is drawn before it.

  Arguments as in `draw_missing`.
  """
  prefix = prefix_tokens(tools.task, tools.tokenizer)
  tools.sampler.prepare(len(prefix), num_samples, **decoding)


def _judged(tools: Tools, view: Drawing, rows: list[Graded]) -> list[Graded]:
  view.judged(rows)
  tokens = sum(len(row.completion.tokens) for row in rows)
  tools.sampler.stats.tokens += tokens
  return rows


def prompt_tokens(
  task: Task, tokenizer: Tokenizer, problem: Problem
) -> tuple[list[int], list[int]]:
  """Returns the ids of the shared prefix and of the question."""
  question = question_tokens(task, tokenizer, problem)
  return prefix_tokens(task, tokenizer), question


def prefix_tokens(task: Task, tokenizer: Tokenizer) -> list[int]:
  """Returns the ids that all prompts begin with."""
  if task.turn_end:  # A chat holds its begin token.
    return [*_encoded(tokenizer, task.prefix)]
  start = [] if tokenizer.bos is None else [tokenizer.bos]
  return [*start, *_encoded(tokenizer, task.prefix)]


def question_tokens(
  task: Task, tokenizer: Tokenizer, problem: Problem
) -> list[int]:
  """Returns the ids that ask a problem, behind the prefix."""
  return _question(task, tokenizer, problem).tolist()


@functools.lru_cache(maxsize=2**16)
def _question(
  task: Task, tokenizer: Tokenizer, problem: Problem
) -> 'array[int]':
  # Every iteration asks the same; to encode GSM8K's questions takes a second,
  # in which the device has nothing to do.
  question = task.question(problem)
  if task.turn_end:  # A chat is encoded as one text; see `tasks.chat.Form`.
    shared = len(_encoded(tokenizer, task.prefix))
    return array('i', tokenizer.encode(task.prefix + question)[shared:])
  return array('i', tokenizer.encode(question, follows=bool(task.prefix)))


@functools.lru_cache(maxsize=16)
def _encoded(tokenizer: Tokenizer, prefix: str) -> tuple[int, ...]:
  # Asked for with every problem; eight examples take a millisecond.
  return tuple(tokenizer.encode(prefix)) if prefix else ()


def random_key(purpose: str, problem_id: str) -> int:
  """Returns 64 bits that name a problem's samples, the same on every host."""
  digest = hashlib.sha256(f'{purpose}\n{problem_id}'.encode()).digest()
  return int.from_bytes(digest[:8], 'big')


def _asks(
  tools: Tools, problems: Sequence[Problem], num_samples: int, key: str
) -> tuple[list[int], list[Ask]]:
  """Returns the shared prefix, and what is asked of the sampler."""
  task, codec = tools.task, tools.tokenizer
  samples = tuple(range(num_samples))
  held: dict[int, int] = {}  # One integer a token: a million asks have many.
  asks = [
    Ask(
      key=random_key(key, problem.id),
      tokens=tuple(
        held.setdefault(token, token)
        for token in question_tokens(task, codec, problem)
      ),
      samples=samples,
    )
    for problem in problems
  ]
  return prefix_tokens(task, codec), asks
