"""Calls Triton's kernels from jitted functions, and what the kernels share.

Kernels are compiled for GPUs by jax-triton; in tests something else stands in
its place. Only modules with kernels import this one, and they are only imported
where kernels run.
"""

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import triton
import triton.language as tl

# The score of a key that must not be seen, and the least that can be: so far
# above that where nothing is seen all weights are 0, not equal.
NEVER = tl.constexpr(-1e30)
LEAST = tl.constexpr(-1e20)

if TYPE_CHECKING:
  constexpr = Any  # To Python, a constant is what it is.
else:
  constexpr = tl.constexpr

Struct = jax.ShapeDtypeStruct
_OPTIONS = {
  'enable_fp_fusion': True,  # `grow` wants it; its default is about to change.
  'ptx_version': 87,  # CUDA 12.8's: JAX's assembler may be older than Triton's.
}


def launch(
  kernel: Any,
  grid: tuple[int, ...],
  reads: Sequence[Any],
  writes: Sequence[Struct],
  fixed: Any,
  cut: tuple[int, int],
  changes: Sequence[jax.Array] = (),
) -> list[jax.Array]:
  """Returns what a kernel writes, and what it changes in place, in order.

  Args:
    kernel: Of what it reads, the arrays that it changes, those that it writes,
      and what is fixed.
    grid: How many programs there are along each axis.
    reads: Arrays, tuples of them, and integers. All arrays lie as in NumPy.
    writes: Shapes and types of new ones.
    fixed: What is compiled in; it has a hash.
    cut: Warps of a program; and of blocks of keys, how many it works on or
      waits for.
    changes: Arrays of which the kernel changes a part; they are given away.
  """
  call = importlib.import_module('jax_triton').triton_call
  changed = [jax.new_ref(x) for x in changes]
  written = call(
    *(*reads, *changed),
    kernel=kernel,
    out_type=tuple(writes),
    grid=grid,
    name=kernel.__name__,
    num_warps=cut[0],
    num_stages=cut[1],
    backend_options=_OPTIONS,
    fixed=fixed,
  )
  return [*written, *map(jax.freeze, changed)]


@triton.jit
def places(base, first, rows: constexpr, stride, width: constexpr):
  """Returns where [rows, width] of an array lie, whose rows are a stride apart.

  Example: of q_TKH at T = 2, K = 3 and H = 4, head 1 begins at 4, and its
  tokens are 12 apart: places(4, 0, 2, 12, 4) are 4 5 6 7 and 16 17 18 19.
  """
  row = first + tl.arange(0, rows)
  return base + row[:, None] * stride + tl.arange(0, width)[None, :]


@triton.jit
def squash(product, cap):
  """Returns tanh(product / cap)."""
  return 2 * tl.sigmoid(product * (2 / cap)) - 1


@triton.jit
def zeros(rows: constexpr, width: constexpr):
  """Returns zeros; Triton 3.7 makes arrays of its constants only so."""
  return tl.zeros((rows, width), tl.float32)


@triton.jit
def begin(queries: constexpr, width: constexpr):
  """Returns a softmax over no keys: see `grow`."""
  top_M = tl.full((queries,), LEAST, tl.float32)
  return zeros(queries, width), top_M, tl.zeros((queries,), tl.float32)


@triton.jit
def grow(out_MH, top_M, total_M, score_MS, v_SH, unit):
  """Adds a block of keys to a softmax, and returns it: out, top and total.

  Keys come a block at a time, each once, and no weight is kept: a larger score
  than all before scales down what was summed (the online softmax; Milakov and
  Gimelshein, arXiv:1805.02867).

  Invariant: behind each block, for each query, `top` is the largest score so
  far, `total` the sum of 2^(unit (score - top)) and `out` that of these weights
  times values. With a unit of 1,

    scores of block 0: 1, 3    top 3, total 2^-2 + 1 = 1.25
    scores of block 1: 4       top 4, total 1.25 x 2^-1 + 1 = 1.625
    kept: 4 + log2(1.625) = log2(26), and 2^1 + 2^3 + 2^4 = 26
  """
  above_M = tl.maximum(top_M, tl.max(score_MS, 1))
  # One instruction multiplies and subtracts, and rounds once: of two equal
  # numbers as large as LEAST it makes no 0, so that shares are made otherwise.
  weight_MS = tl.exp2(score_MS * unit - (above_M * unit)[:, None])
  share_M = tl.exp2((top_M - above_M) * unit)
  out_MH = tl.dot(weight_MS.to(v_SH.dtype), v_SH, out_MH * share_M[:, None])
  return out_MH, above_M, total_M * share_M + tl.sum(weight_MS, 1)
