"""How long a job may take, by CPU time rather than by the clock.

Stops: sleeping, waiting for ever, computing in many processes. Does not stop:
using all that is allowed.
"""

import select
import time
from collections.abc import Sequence

from rest.verify.sandbox.sandbox import Sandbox

MAX_LOAD = 8.0  # Times the wall time, at most, for waiting for a core.
IDLE_SECONDS = 2.0  # Wall time for a case besides computing.
_LOOK_SECONDS = 0.05  # Between two looks at a job's CPU time, at least.


def overdue(sandboxes: Sequence[Sandbox], cpu: float) -> bool:
  """Waits for the job in the first sandbox; returns whether it is overdue.

  Its CPU time is looked at when it may be over. Waiting for a core does not
  count, so that a busy host changes no verdict; sleeping and waiting for
  anything else does.

  Invariant: true means that the job still runs and has used its CPU time, or
  wall time that no wait for a core explains. With 1 s of CPU time that is 3.5
  s; a job that has waited for a core for 6 s has 9.5 s, and none more than 28.

  Args:
    sandboxes: Where the jobs run that depend on each other.
    cpu: Seconds of CPU time that each may take.
  """
  poll = select.poll()
  poll.register(sandboxes[0], select.POLLIN)
  start = time.monotonic()
  end = start + wall_seconds(cpu, 1.0)
  used = 0.0
  while (left := end - time.monotonic()) > 0:
    if poll.poll(min(left, max(cpu - used, _LOOK_SECONDS)) * 1000):
      return False
    shares = [sandbox.share() for sandbox in sandboxes]
    if shares[0] is None:
      return False
    running = [share for share in shares if share]
    used = max(share.used for share in running)
    if used > cpu:
      return True
    waited = sum(share.waited for share in running)
    end = start + min(
      wall_seconds(cpu, 1.0) + waited, wall_seconds(cpu, MAX_LOAD)
    )
  return True


def wall_seconds(cpu: float, load: float) -> float:
  """Returns the wall time for so much CPU time, on a host so loaded."""
  return (1.5 * cpu + IDLE_SECONDS) * load
