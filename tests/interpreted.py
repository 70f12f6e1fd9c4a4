"""Kernels interpreted on the host: what stands in jax-triton's place in tests.

Triton's interpreter wants PyTorch, and to be told of it before a kernel is
defined: `conftest.py` sets TRITON_INTERPRET.
"""

import threading
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

_INTERPRETER = threading.Lock()  # It has one grid, whoever calls.


def triton_call(*given, kernel, out_type, grid, name, fixed, **_):
  """As jax-triton's; the program calls back for it.

  NumPy has no bfloat16: it becomes float32 here, and is rounded at the end.
  Integers arrive as arrays without axes.
  """
  refs = [x for x in given if isinstance(x, jax.Ref)]
  reads = [x for x in given if not isinstance(x, jax.Ref)]
  changes = [ref[...] for ref in refs]
  results = [*(jax.typeof(x) for x in changes), *out_type]

  def tensor(x: Any) -> Any:
    if not np.ndim(x):
      return int(x)
    wide = np.float32 if x.dtype == jnp.bfloat16 else x.dtype
    return torch.from_numpy(np.array(x, wide))

  def run(reads, changes):
    written = [np.zeros(x.shape, x.dtype) for x in out_type]
    reads, *found = jax.tree.map(tensor, (reads, changes, written))
    found = [*found[0], *found[1]]
    with _INTERPRETER:
      kernel[grid](*reads, *found, fixed)
    pairs = zip(found, results, strict=True)
    return [x.numpy().astype(result.dtype) for x, result in pairs]

  run.__name__ = name
  found = jax.pure_callback(run, results, reads, changes)
  for ref, x in zip(refs, found, strict=False):
    ref[...] = x
  return found[len(refs) :]
