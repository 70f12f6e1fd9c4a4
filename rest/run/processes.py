"""What the processes of one run agree on; with one process, nothing to do.

Every process runs the same program. Problems are split between them for
sampling and judging; arrays of the trained model lie over all their devices.
The working directory is one that all of them see.
"""

import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils
from numpy.typing import NDArray


def initialize() -> None:
  """Joins the other processes of the run, as the environment says.

  REST_DISTRIBUTED=auto lets JAX find them (TPU pods, Slurm, GKE). Otherwise
  REST_COORDINATOR (host:port of process 0), REST_NUM_PROCESSES and
  REST_PROCESS_ID do. With neither, this process is alone.

  Raises:
    ValueError: Only some of the variables are set.
  """
  if os.environ.get('REST_DISTRIBUTED') == 'auto':
    jax.distributed.initialize()
    return
  names = ('REST_COORDINATOR', 'REST_NUM_PROCESSES', 'REST_PROCESS_ID')
  given = [os.environ.get(name) for name in names]
  if not any(given):
    return
  coordinator, count, index = given
  if coordinator is None or count is None or index is None:
    raise ValueError(f'{", ".join(names)} must be set together; got {given}.')
  jax.distributed.initialize(
    coordinator_address=coordinator,
    num_processes=int(count),
    process_id=int(index),
    cluster_detection_method='deactivate',  # Nothing is left to detect.
  )


def abandon(error: BaseException) -> NoReturn:
  """Ends this process at once on an error that stops the run.

  JAX would wait at exit for the other processes, which may be dead (then their
  death is what the error tells of) or in a collective that waits for this one.
  """
  traceback.print_exception(error)
  print(
    f'error: process {jax.process_index()} of {jax.process_count()} stops. If '
    'another one died, its own output says why. Everything so far is saved: '
    'start all processes again to go on.',
    file=sys.stderr,
    flush=True,
  )
  os._exit(1)


def is_first() -> bool:
  """Whether this process is the one that writes what all share."""
  return jax.process_index() == 0


def mine(indices: Sequence[int]) -> list[int]:
  """Returns this process's share: the same whatever the others have done."""
  count = jax.process_count()
  return [index for index in indices if index % count == jax.process_index()]


def barrier(name: str) -> None:
  """Waits until all processes are here."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(name)


def first_says(value: bool) -> bool:
  """Returns what the first process sees, so that all take the same turn."""
  if jax.process_count() == 1:
    return value
  return bool(multihost_utils.broadcast_one_to_all(np.asarray(value)))


def any_says(values: NDArray[np.bool_]) -> NDArray[np.bool_]:
  """Returns, place by place, whether any process says so; all must ask."""
  if jax.process_count() == 1:
    return values
  said = multihost_utils.process_allgather(values)
  return np.asarray(np.any(said, axis=0))


def totals(*values: float) -> list[float]:
  """Returns the sums over processes."""
  if jax.process_count() == 1:
    return list(values)
  gathered = multihost_utils.process_allgather(np.asarray(values, np.float32))
  return np.asarray(gathered).reshape(-1, len(values)).sum(axis=0).tolist()
