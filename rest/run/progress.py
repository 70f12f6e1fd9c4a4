"""What one sees of a run while it runs: bars, log lines, and profiles."""

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jax
from etils import epath
from tqdm import tqdm

from rest.run.log import Journal
from rest.types import Graded

_TICKS_BEFORE = 4  # Samples or steps before a profile: all is compiled by then.
_PROFILE_SECONDS = 5.0  # Length of a profile.
_EVERY = 30.0  # Seconds between lines of a bar that nobody watches.


class Live:
  """Shows and records; without arguments, it only shows bars."""

  def __init__(
    self, journal: Journal | None = None, profile: epath.Path | None = None
  ):
    """Starts with nothing under way.

    Args:
      journal: Where metrics and log lines go.
      profile: Folder for one JAX profile of each phase; None takes none.
    """
    self.journal = journal or Journal()
    self._profile = profile
    self._phase = ''
    self._ticks: Counter[str] = Counter()  # By phase.
    self._profiling = ''
    self._since = 0.0

  @contextmanager
  def phase(self, name: str, iteration: int) -> Iterator[dict[str, float]]:
    """Notes how long a phase took, and what else the caller puts in."""
    started = time.monotonic()
    self._phase = name
    values: dict[str, float] = {}
    try:
      yield values
    finally:
      self._end_profile()
      values['seconds'] = time.monotonic() - started
      rounded = {name: round(value, 2) for name, value in values.items()}
      self.journal.write(f'phase/{name}', iteration, None, **rounded)

  @contextmanager
  def drawing(
    self, title: str, problems: int, samples: int, unjudged: Callable[[], int]
  ) -> Iterator['Drawing']:
    """Shows how drawing goes; `samples` a problem, `unjudged` now waiting."""
    with progress(problems * samples, title, 'samples') as bar:
      yield Drawing(bar, samples, unjudged)
    self._end_profile()

  def scored(self, split: str, iteration: int, scores: Any) -> None:
    """Notes and tells what a model scored; `scores` is an `Evaluation`."""
    values = {split: scores.pass_1}
    values |= {f'{split}_pass_{k}': v for k, v in scores.pass_at_k.items()}
    if scores.maj_at_k is not None:
      values[f'{split}_majority'] = scores.maj_at_k
    self.journal.write('score', iteration, None, **values)
    unreadable = len(scores.unreadable) / max(1, scores.problems)
    self.journal.say(
      f'iteration {iteration}: solves {scores.pass_1:.1%} of '
      f'{scores.problems:,} {split} problems greedily '
      f'(95 % interval {scores.low:.1%} to {scores.high:.1%}); cut off '
      f'{scores.unfinished:.1%}, without a readable answer {unreadable:.1%}'
    )

  def on_step(self, iteration: int) -> Callable[[int, Any], None]:
    """Returns what notes each step of training: (steps done, its metrics)."""

    def note(done: int, step: Any) -> None:
      self.journal.write('train', iteration, done, **step._asdict())
      self.tick()

    return note

  def tick(self) -> None:
    """Counts a sample or a step; starts and ends the profile of a phase."""
    if self._profile is None:
      return
    self._ticks[self._phase] += 1
    if self._profiling and time.monotonic() - self._since > _PROFILE_SECONDS:
      self._end_profile()
    if self._ticks[self._phase] == _TICKS_BEFORE:
      jax.profiler.start_trace(str(self._profile / self._phase))
      self._profiling, self._since = self._phase, time.monotonic()

  def _end_profile(self) -> None:
    if self._profiling:
      jax.profiler.stop_trace()
      self.journal.say(
        f'profiled {time.monotonic() - self._since:.1f} s of '
        f'{self._profiling}: see {self._profile}/{self._profiling}'
      )
      self._profiling = ''


class Drawing:
  """How sampling and judging go, on a bar."""

  def __init__(self, bar: tqdm, samples: int, unjudged: Callable[[], int]):
    self._bar, self._samples, self._unjudged = bar, samples, unjudged
    self._started = self._shown = time.monotonic()
    self._tokens = self._judged = self._correct = 0
    self._cut_off = self._unreadable = 0
    self._problems = self._solved = 0

  def drawn(self, tokens: Sequence[int]) -> None:
    """Counts samples, each of so many tokens; their verdicts are to come."""
    self._tokens += sum(tokens)
    now = time.monotonic()
    if not self._bar.disable and now - self._shown > self._bar.mininterval:
      self._shown = now
      self._bar.set_postfix_str(self._text(now), refresh=False)
    self._bar.update(len(tokens))

  def judged(self, rows: Sequence[Graded]) -> None:
    """Counts the verdicts of a problem."""
    correct = sum(row.verdict.reward == 1.0 for row in rows)
    self._judged += len(rows)
    self._correct += correct
    self._cut_off += sum(not row.finished for row in rows)
    self._unreadable += sum(not row.verdict.readable for row in rows)
    self._problems += 1
    self._solved += correct > 0

  def _text(self, now: float) -> str:
    text = f'{self._tokens / (now - self._started):,.0f} tokens/s'
    if self._judged:
      text += f', {self._correct / self._judged:.1%} right'
      text += f', {self._cut_off / self._judged:.1%} cut off'
      text += f', {self._unreadable / self._judged:.1%} unreadable'
      if self._samples > 1:
        text += f', {self._solved / self._problems:.1%} of problems solved'
    return f'{text}, {self._unjudged()} to judge'


def progress(total: int, title: str, unit: str) -> tqdm:
  """Returns a progress bar; where nobody watches, a line every half minute."""
  common: dict[str, Any] = {
    'total': total,
    'desc': title,
    'unit': f' {unit}',
    'leave': False,
  }
  if sys.stderr.isatty():
    return tqdm(
      **common,
      mininterval=0.2,
      dynamic_ncols=True,
      bar_format='{desc} {percentage:3.0f}%|{bar:10}| {n_fmt}/{total_fmt} '
      '[{elapsed}<{remaining}, {rate_noinv_fmt}{postfix}]',
    )
  return tqdm(
    **common,
    mininterval=_EVERY,
    delay=_EVERY,
    smoothing=0,  # The rate since the start: lines are far apart.
    file=_Lines(),
    bar_format='{desc} {n_fmt} of {total_fmt}, {rate_noinv_fmt}, '
    '{remaining} to go{postfix}',
  )


class _Lines:
  """Takes what a bar writes, and prints it as lines."""

  def write(self, text: str) -> None:
    # Bars go back to the start of the line, and up over those below.
    line = text.replace('\x1b[A', '').strip()
    if line:
      sys.stderr.write(f'{line}\n')

  def flush(self) -> None:
    sys.stderr.flush()
