"""What sampling took, and whether the device ever waited for the host."""

import time
from collections import deque
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from rest.sampler.order import Held
from rest.sampler.table import Drawn


@dataclass(slots=True)
class Stats:
  """What sampling took; sums since the sampler was made.

  Attributes:
    tokens: Tokens in completions drawn.
    row_steps: Rows times steps that the device ran.
    busy_row_steps: Of them, those that drew a token.
    calls: Decoding calls.
    seconds: From the first prompt in to the last token out, the consumer's
      time included.
    idle_seconds: Of them, time that the device waited between calls (a lower
      bound, seen by the host).
  """

  tokens: int = 0
  row_steps: int = 0
  busy_row_steps: int = 0
  calls: int = 0
  seconds: float = 0.0
  idle_seconds: float = 0.0

  @property
  def busy(self) -> float:
    """Share of row-steps that drew a token."""
    return self.busy_row_steps / max(1, self.row_steps)

  def counts(self) -> dict[str, float]:
    """Returns what the log of a phase tells of sampling, by its name there."""
    return {
      'tokens': self.tokens,
      'row_steps': self.row_steps,
      'busy': self.busy_row_steps,
      'idle': self.idle_seconds,
      'drawing': self.seconds,
    }


class Call(NamedTuple):
  """A decoding call under way, and who was at work when it was made."""

  drawn: Drawn
  held: Held

  @property
  def is_done(self) -> bool:
    """Whether the device has finished it."""
    entry_TQR: Any = self.drawn.entry_TQR  # The stubs lack `is_ready`.
    return entry_TQR.is_ready()


class Watch:
  """Counts the time in which the device had no call to work on."""

  def __init__(self):
    self.idle = 0.0
    self._ready: float | None = None  # When the last call was seen to end.
    self._took = 0.0  # How long a call takes, last known.

  def before(self, calls: deque[Call]) -> None:
    """To be called when a call is about to be made."""
    if self._ready is None or (calls and not calls[-1].is_done):
      return
    # A call that ended unseen ended about when it should have.
    busy_until = self._ready + (self._took if calls else 0.0)
    self.idle += max(0.0, time.monotonic() - busy_until)

  def read(self, call: Call) -> Drawn:
    """Waits for what a call drew, and returns it in NumPy."""
    has_waited = not call.is_done
    drawn = Drawn._make(np.asarray(x) for x in call.drawn)
    now = time.monotonic()
    if has_waited and self._ready is not None:
      self._took = now - self._ready
    self._ready = now
    return drawn
