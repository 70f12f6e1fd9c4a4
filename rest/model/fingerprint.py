"""A few digits that weights are known by, whatever the mesh they lie on."""

import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def fingerprint(tree: Any) -> str:
  """Returns 16 hexadecimal digits that any changed bit or place would change.

  Integers are summed, so that the order of a sum, and with it the mesh, does
  not matter: each value's bits, times an odd number that its place gives. It
  takes as long as the device needs to read the tree once.

  Args:
    tree: Arrays of 2 or 4 bytes a value.
  """
  paths = [
    jax.tree_util.keystr(path)
    for path, _ in jax.tree_util.tree_leaves_with_path(tree)
  ]
  sums = np.asarray(_sums(jax.tree.leaves(tree)))
  text = ''.join(f'{p} {n}\n' for p, n in zip(paths, sums, strict=True))
  return hashlib.sha256(text.encode()).hexdigest()[:16]


@jax.jit
def _sums(leaves: list[jax.Array]) -> jax.Array:
  """Returns one number a leaf, as uint32."""
  return jnp.stack([_sum(leaf) for leaf in leaves])


def _sum(leaf: jax.Array) -> jax.Array:
  bits = jnp.uint32 if leaf.dtype.itemsize == 4 else jnp.uint16
  values = jax.lax.bitcast_convert_type(leaf, bits).astype(jnp.uint32)
  place = jnp.uint32(0)
  for axis, size in enumerate(leaf.shape):  # Counts, row by row.
    index = jax.lax.broadcasted_iota(jnp.uint32, leaf.shape, axis)
    place = place * jnp.uint32(size) + index
  # An odd factor loses no bit; a large one tells neighbours apart.
  factor = place * jnp.uint32(2654435762) | jnp.uint32(1)
  return jnp.sum(values * factor, dtype=jnp.uint32)
