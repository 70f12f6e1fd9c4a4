"""What all processes of a run do alike, or none."""

import contextlib
from collections.abc import Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils

_LONGEST = 400  # Bytes of an error that the others get to know.


@contextlib.contextmanager
def together() -> Iterator[None]:
  """Makes an error of one process one of all, as they meet at the end.

  Whoever went on alone would wait for the others in the next collective. So
  nothing within may be one.

  Raises:
    Exception: This process's own.
    ValueError: Another has one; says which, and what it was.
  """
  own = None
  try:
    yield
  except Exception as error:  # Whatever it is, the others are to know.
    own = error
  if jax.distributed.is_initialized() and jax.process_count() > 1:
    text = f'{type(own).__name__}: {own}' if own else ''
    data = text.encode()[:_LONGEST].ljust(_LONGEST)
    said = multihost_utils.process_allgather(np.frombuffer(data, np.uint8))
    texts = [row.tobytes().decode(errors='replace').strip() for row in said]
    for index, text in enumerate(texts):
      if text and own is None:
        own = ValueError(f'process {index} of {len(texts)}: {text}')
  if own:
    raise own
