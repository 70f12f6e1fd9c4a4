"""What ends before all is drawn: a problem that is settled, or the list.

Processes that sample in step must see both at the same call, or they would
launch different programs and wait for each other for ever.
"""

from collections.abc import Callable

import numpy as np
from jax.sharding import Mesh

from rest.model.sharding import in_step
from rest.run import processes
from rest.types import Preempted

# How often processes in step ask each other, in calls. To ask waits for the
# call under way, behind which the device then waits for the host; and a call
# takes ten milliseconds or more: to stop may take a second.
_EVERY = 16


class Ending:
  """What has ended of a list of asks, which are known by their place.

  Attributes:
    withdrawn: Asks of which the sampler is to draw no more: those that are
      settled, in step as far as all processes have been told.
  """

  def __init__(
    self,
    mesh: Mesh,
    asks: int,
    own: set[int],
    should_stop: Callable[[], bool],
    title: str,
  ):
    """Begins before the first call.

    Args:
      mesh: The sampler's.
      asks: How many are drawn.
      own: Those of this process's share.
      should_stop: Whether this process was asked to stop.
      title: Of what is drawn.
    """
    self._settled: set[int] = set()
    self._is_in_step = in_step(mesh)
    self.withdrawn = set[int]() if self._is_in_step else self._settled
    self._asks, self._own = asks, own
    self._should_stop = should_stop
    self._title = title
    self._calls = 0

  def wants(self, ask: int) -> bool:
    """Whether this process is to judge a further sample."""
    return ask in self._own and ask not in self._settled

  def settle(self, ask: int) -> None:
    """Wants no more of an ask."""
    self._settled.add(ask)

  def after_problem(self) -> None:
    """Ends the list of a process that samples by itself.

    Raises:
      Preempted: It was asked to stop.
    """
    if not self._is_in_step:
      self._check(self._should_stop())

  def after_call(self) -> None:
    """Ends, in step, what any process wants to end.

    Raises:
      Preempted: One was asked to stop; all raise it behind the same call.
    """
    if self._is_in_step and self._calls % _EVERY == 0:
      says = np.zeros(self._asks + 1, bool)
      says[[*self._settled]] = True
      says[-1] = self._should_stop()
      says = processes.any_says(says)
      self.withdrawn.update(np.flatnonzero(says[:-1]).tolist())
      self._check(bool(says[-1]))
    self._calls += 1

  def _check(self, should_stop: bool) -> None:
    if should_stop:
      raise Preempted(f'while sampling for {self._title}')
